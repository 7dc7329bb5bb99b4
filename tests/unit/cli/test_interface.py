"""What all commands share: exit statuses, `--json`, standard output, `--version`, `NO_COLOR`."""

import inspect
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, get_args, get_type_hints

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli import analytics
from cli.__main__ import build
from cli.stack import clean, up
from stack.install.version import version
from stack.record import ProcessRow, Record
from stack.settings import StackSettings
from tests.conftest import ROOT

PROGRAM = str(ROOT / "image-search")
NOWHERE = {"GATEWAY_PORT": "9", "KAFKA_PORT": "9", "WEAVIATE_PORT": "9", "TRITON_PORT": "9"}
"""Ports on which nothing answers."""


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
    assert missing == set()


@pytest.mark.slow
def test_up_in_the_foreground_has_no_result(tmp_path: Path) -> None:
    done = run("up", "--json", STATE_DIR=str(tmp_path / "state"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json needs --detach" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["search", "tennis"],
        ["logs", "nobody"],
        ["index", "skipped"],
        ["index", "reconcile"],
        ["models", "info", "nobody"],
        ["models", "remove", "lite"],
        ["models", "pull", "nobody"],
        ["dlq", "retry"],
        ["dlq", "list", "--source", "x"],
        ["analytics", "sql", "FROM nothing"],
        ["analytics", "forget"],
    ],
    ids=" ".join,
)
def test_an_error_leaves_standard_output_empty(tmp_path: Path, words: list[str]) -> None:
    done = run(*words, "--json", STATE_DIR=str(tmp_path), **NOWHERE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        *((["--version"], ""), (["--help"], ""), (["doctor"], ""), (["status"], "")),
        *((["logs"], ""), (["logs"], "1"), (["logs", "--json"], "1"), (["--version"], "1")),
        *((["models", "list"], "1"), (["models", "info", "lite"], "")),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, words: list[str], unbuffered: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "watcher.log").write_text("a line\n" * 5000)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, *words],
            env={
                **{**os.environ, "PYTHONUNBUFFERED": unbuffered},
                **{**NOWHERE, "STATE_DIR": str(tmp_path)},
            },
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_has_enough_gets_no_message(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "watcher.log").write_text("a line\n" * 50_000)
    done = subprocess.run(
        ["/bin/bash", "-c", f"{PROGRAM} logs -n 50000 | head -n 1; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_without_standard_output_a_command_succeeds() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {PROGRAM} models list >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "watcher.log").write_text("caf\u00e9 \u2026\n")
    done = run("logs", STATE_DIR=str(tmp_path), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == r"caf\xe9 \u2026"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        ["models", "switch", "next", "--max-missing"],
        ["models", "add", "--from", ".", "--min-score"],
        ["search", "tennis", "--min-score"],
        ["analytics", "compact", "--grace"],
    ],
    ids=" ".join,
)
def test_a_number_is_finite(words: list[str], value: str) -> None:
    done = CliRunner().invoke(build(words), [*words, value])
    assert done.exit_code == 2


def test_every_number_of_an_option_is_checked() -> None:
    found = set()
    for name, command in leaves(get_command(build())):
        hints = get_type_hints(inspect.unwrap(command.callback))
        for parameter in command.params:
            if float in (hints[parameter.name], *get_args(hints[parameter.name])):
                found.add(f"{name} {parameter.opts[0]}")
                assert parameter.callback is not None, f"{name} {parameter.opts}"
    assert "models switch --max-missing" in found


@pytest.mark.parametrize("cache", [True, False])
def test_clean_names_what_it_may_delete(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cache: bool,
) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("stack.settings.ROOT", tmp_path)
    if cache:
        monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    else:
        monkeypatch.delenv("CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual"))
    clean()
    text = capsys.readouterr().out
    assert ("rm -rf" in text) is not cache
    assert not re.search(r"rm -rf\s*$", text, re.MULTILINE)
    if not cache:
        assert f"rm -rf {tmp_path}/usual/image-search" in text


@pytest.mark.slow
def test_prepare_prints_what_it_prepared(tmp_path: Path) -> None:
    elsewhere = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "WEAVIATE_URL": "http://127.0.0.1:9",
        "TRITON_URL": "http://127.0.0.1:9",
    }
    done = run("prepare", "--json", CACHE_DIR=str(tmp_path), **elsewhere)
    assert json.loads(done.stdout) == {"servers": {}, "cache": str(tmp_path)}


def test_up_in_the_background_prints_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(settings: StackSettings, *, servers_only: bool, output: TextIO) -> Record:
        print("12:00:00 ready", file=output)
        row = ProcessRow(name="gateway", state="ready", pid=7)
        gone = ProcessRow(name="provision", state="done")
        launcher = ProcessRow(name="launcher", state="running", pid=6)
        return Record(
            launcher=launcher, gateway_url=settings.gateway_url, processes=[row, gone], ready=True
        )

    monkeypatch.setattr("stack.detached.up_detached", started)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    up(detach=True, as_json=True)
    printed = capsys.readouterr()
    assert "ready" in printed.err
    found = json.loads(printed.out)
    assert found["gateway"] == StackSettings().gateway_url
    assert found["servers"].keys() == {"kafka", "weaviate", "triton"}
    assert found["processes"] == {"gateway": 7}
    up(detach=True, as_json=True, servers_only=True)
    assert json.loads(capsys.readouterr().out)["gateway"] is None


@pytest.mark.slow
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
    done = run(*words, STATE_DIR=str(tmp_path), **NOWHERE)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_statuses_are_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert re.findall(r"(?m)^\| (\d+) \|", text) == ["0", "1", "2"]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert version() == project["project"]["version"]
    assert run("--version").stdout == f"image-search {version()}\n"


@pytest.mark.slow
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


@pytest.mark.slow
def test_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("analytics.views.query", lambda *_: [{"name": "a"}])
    analytics.sql("FROM totals")
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    analytics.sql("FROM totals")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", capsys.readouterr().out)
    assert "\x1b[" not in run("--help", **terminal).stdout
    assert "\x1b[" not in run("models", "list", **terminal).stdout
