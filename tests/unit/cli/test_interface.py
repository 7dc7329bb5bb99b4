"""What all commands share: exit statuses, `--json`, `--version`, completion and `NO_COLOR`."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli import completion
from cli.__main__ import build
from stack.install.version import version
from tests.conftest import ROOT

PROGRAM = str(ROOT / "image-search")
WITHOUT_RESULT = {"up", "prepare"}
"""Commands that print only what they do."""


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for each, child in (below or {}).items():
        yield from leaves(child, f"{name} {each}".strip())


def test_every_command_with_a_result_prints_json() -> None:
    missing = {
        name
        for name, command in leaves(get_command(build()))
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert missing == WITHOUT_RESULT


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 0),
        (["down"], 0),
        (["status"], 1),
        (["logs", "nobody"], 1),
        (["nonsense"], 2),
        (["logs", "--nonsense"], 2),
        (["logs", "--lines", "many"], 2),
        (["doctor", "--nonsense"], 2),
    ],
)
def test_exit_statuses(tmp_path: Path, words: list[str], status: int) -> None:
    free = {"GATEWAY_PORT": "9", "KAFKA_PORT": "9", "WEAVIATE_PORT": "9", "TRITON_PORT": "9"}
    done = run(*words, STATE_DIR=str(tmp_path), **free)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_statuses_are_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert re.findall(r"(?m)^\| (\d+) \|", text) == ["0", "1", "2"]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert version() == project["project"]["version"]
    assert run("--version").stdout == f"image-search {version()}\n"


def test_results_as_json(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "watcher.log").write_text("one\ntwo\nthree\n")
    state = {"STATE_DIR": str(tmp_path)}
    assert json.loads(run("logs", "-n", "2", "--json", **state).stdout) == {
        "watcher": ["two", "three"]
    }
    assert json.loads(run("down", "--json", **state).stdout) == {"stopped": []}
    found = json.loads(run("doctor", "--json", **state).stdout)
    assert {"subject", "state", "text", "remedies"} == found[0].keys()
    assert json.loads(run("models", "list", "--json", **state).stdout)[0]["name"] == "lite"


def test_the_help_names_doctor_and_completion() -> None:
    shown = run("--help", COLUMNS="100").stdout
    for name in ("doctor", "--install-completion", "--version"):
        assert name in shown


def test_no_colour_where_none_is_wanted() -> None:
    words, terminal = ("models", "list"), {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[" in run(*words, **terminal).stdout
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", run(*words, NO_COLOR="1", **terminal).stdout)
    assert "\x1b[" not in run("--help", **terminal).stdout


class TestCompletion:
    SHELL = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"

    def script(self, shell: str) -> str:
        done = run("--show-completion", shell, **{self.SHELL: "1"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_bash_completes_what_was_typed(self, tmp_path: Path) -> None:
        (tmp_path / "script").write_text(self.script("bash"))
        lines = (
            f"source {tmp_path}/script\n"
            "complete -p image-search\n"
            f"COMP_WORDS=({PROGRAM} models sw) COMP_CWORD=2\n"
            f"_image_search_completion {PROGRAM}\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["/bin/bash", "--norc", "-c", lines], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "switch"

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_other_shells_call_this_checkout(self, shell: str) -> None:
        script = self.script(shell)
        assert str(completion.PROGRAM) in script
        assert completion.VARIABLE in script
        assert "./" not in script.replace(str(completion.PROGRAM), "")

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_other_shells_get_an_answer(self, shell: str) -> None:
        done = run(
            **{
                completion.VARIABLE: f"complete_{shell}",
                "_TYPER_COMPLETE_ARGS": "./image-search dlq ",
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            }
        )
        assert all(name in done.stdout for name in ("list", "show", "retry", "drop"))

    def test_it_is_installed_for_the_name(self, tmp_path: Path) -> None:
        done = run("--install-completion", "bash", HOME=str(tmp_path), **{self.SHELL: "1"})
        assert done.returncode == 0, done.stderr
        assert (tmp_path / ".bash_completions" / "image-search.sh").exists()
