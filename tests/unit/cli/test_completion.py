"""Completion of commands, options and names, by each shell that is installed."""

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import completion, names
from tests.conftest import ROOT
from tests.unit.cli.test_interface import PROGRAM, run

DETECTION = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
SECONDS = 60.0


def script(shell: str) -> str:
    done = run("--show-completion", shell, **{DETECTION: "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with two logs, and a folder with one model."""
    (tmp_path / "logs").mkdir()
    for name in ("watcher", "weaviate", "gateway"):
        (tmp_path / "logs" / f"{name}.log").touch()
    (tmp_path / "models" / "my-own").mkdir(parents=True)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    return tmp_path


def bash(folder: Path, line: str) -> list[str]:
    (folder / "script").write_text(script("bash"))
    lines = (
        f"source {folder}/script\n"
        "complete -p image-search >&2\n"
        f"COMP_WORDS=({line}) COMP_CWORD=$(({len(line.split())} - 1))\n"
        '_image_search_completion "${COMP_WORDS[0]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", lines], capture_output=True, text=True, check=True
    )
    assert "No such file" not in done.stderr
    return done.stdout.split("\n")[:-1]


def fish(folder: Path, line: str) -> list[str]:
    (folder / "script").write_text(script("fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {folder}/script; complete -C'{line}'"],
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert done.stderr == ""
    return [each.partition("\t")[0] for each in done.stdout.splitlines()]


def zsh(folder: Path, line: str) -> list[str]:
    """What `line` is after the Tab key, in a terminal."""
    (folder / "script").write_text(script("zsh"))
    child, terminal = pty.fork()
    if child == 0:
        variables = {**os.environ, "TERM": "dumb", "HOME": str(folder), "PS1": ""}
        os.execvpe("zsh", ["zsh", "-f", "-i"], variables)  # noqa: S606

    def read(until: bytes) -> str:
        text, deadline = b"", time.monotonic() + SECONDS
        while until not in text:
            assert time.monotonic() < deadline, text
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 65536)
        return text.decode()

    try:
        commands = (
            "autoload -Uz compinit && compinit -u -D",
            f"source {folder}/script",
            'whole() { zle expand-or-complete; print -r -- "<$BUFFER>" }',
            "zle -N whole; bindkey '^X' whole; print rea''dy",
        )
        for each in commands:
            os.write(terminal, f"{each}\n".encode())
        read(b"\nready\r")
        os.write(terminal, f"{line}\x18".encode())
        shown = read(b">\r")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return shown[shown.rindex("<") + 1 : shown.rindex(">")].split()[-1:]


SHELLS = {"bash": bash, "fish": fish, "zsh": zsh}
LINES = (
    ("image-search models sw", "switch"),
    ("~/x/image-search models sw", "switch"),
    ("image-search logs gat", "gateway"),
    ("image-search models info my", "my-own"),
)


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_completes(state: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for line, completed in LINES:
        assert SHELLS[shell](state, line) == [completed], line


@pytest.mark.slow
def test_bash_completes_a_path_that_it_does_not_expand(tmp_path: Path) -> None:
    for path in (PROGRAM, "~/x/image-search", "'$HOME/image-search'", "/gone/image-search"):
        assert bash(tmp_path, f"{path} models sw") == ["switch"]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_all_shells_call_this_checkout(shell: str) -> None:
    text = script(shell)
    assert f"{completion.PROGRAM} 2>/dev/null" in text
    assert completion.VARIABLE in text
    assert "./" not in text.replace(str(completion.PROGRAM), "")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_an_answer(shell: str) -> None:
    done = run(
        **{
            completion.VARIABLE: f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "./image-search dlq ",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    )
    assert all(name in done.stdout for name in ("list", "show", "retry", "drop"))


@pytest.mark.slow
def test_it_is_installed_for_the_name(tmp_path: Path) -> None:
    done = run("--install-completion", "bash", HOME=str(tmp_path), **{DETECTION: "1"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".bash_completions" / "image-search.sh").exists()


def test_names_of_models_and_logs(state: Path) -> None:
    assert {"lite", "my-own", "ViT-B-32__laion2b-s34b-b79k"} <= {*names.models()}
    assert names.LOG_NAMES("w") == ["watcher", "weaviate"]


@pytest.mark.parametrize("variable", ["GATEWAY_PORT", "STATE_DIR", "MODEL_NAME"])
@pytest.mark.parametrize("complete", [names.LOG_NAMES, names.MODEL_NAMES])
def test_a_bad_setting_gives_no_names(
    monkeypatch: pytest.MonkeyPatch, variable: str, complete: Callable[[str], list[str]]
) -> None:
    monkeypatch.setenv(variable, "~no-such-user/x" if variable == "STATE_DIR" else "no port/")
    assert complete("") == []


@pytest.mark.slow
def test_no_completion_creates_anything(tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("STATE_DIR", "CACHE_DIR", "MODELS_DIR")}
    done = subprocess.run(
        [PROGRAM],
        cwd=ROOT,
        env={
            **{**os.environ, **folders, completion.VARIABLE: "complete_zsh"},
            "_TYPER_COMPLETE_ARGS": "image-search models switch ",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lite" in done.stdout
    assert list(tmp_path.iterdir()) == []
