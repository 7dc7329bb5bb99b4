"""The local stack with a changed clock, growing logs and invalid settings."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import typer
from typer.main import get_command

from cli.__main__ import build
from stack import log_files
from stack.launcher import _show_new
from stack.probes import HEARTBEAT_SECONDS, heartbeat_probe
from stack.record import ProcessRow, Record, RecordFile, find, identity, stop, uptime
from tests.conftest import ROOT


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def test_a_stack_is_found_and_stopped_after_the_clock_was_set(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ProcessRow(
        name="launcher", state="running", pid=sleeper.pid, identity=identity(sleeper.pid)
    )
    worker = row.model_copy(update={"name": "watcher"})
    file = RecordFile(tmp_path)
    file.write(Record(launcher=row, gateway_url="http://x", processes=[worker]))
    real = psutil.Process.create_time
    # The kernel reports start times in ticks since boot, and the boot time moves with the clock.
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) - 7200)
    assert find(row) is not None
    # Reap it as the system would: it is a child of this process.
    import threading

    threading.Thread(target=sleeper.wait, daemon=True).start()
    assert stop(file) == ["watcher"]
    assert sleeper.wait(10) == -15
    assert find(row) is None


def test_uptime_does_not_move_with_the_clock(
    sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ProcessRow(name="x", state="ready", pid=sleeper.pid, identity=identity(sleeper.pid))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    try:
        lasting = uptime(row)
        assert lasting is not None
        assert 0 <= lasting < 60
    finally:
        sleeper.kill()
        sleeper.wait()
    assert uptime(row) is None


def test_a_process_of_the_same_id_after_a_reboot_is_another(tmp_path: Path) -> None:
    mine = identity(os.getpid())
    assert mine is not None
    boot, _, ticks = mine.partition(":")
    other = f"{'0' * len(boot)}:{ticks}"
    assert find(ProcessRow(name="x", state="ready", pid=os.getpid(), identity=other)) is None


async def test_the_heartbeat_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ready"
    beats = heartbeat_probe(file)
    assert not await beats()
    file.touch()
    os.utime(file, (10**9, 10**9))  # The clock was set on by years since.
    assert await beats()
    elapsed = time.monotonic() + HEARTBEAT_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: elapsed)
    assert not await beats()
    os.utime(file, (5 * 10**9, 5 * 10**9))  # Set back: the file is from the future.
    assert await beats()
    later = elapsed + HEARTBEAT_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not await beats(), "a dead process is not alive because its file is from the future"


def test_logs_are_bounded_while_their_processes_write(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    with log.open("ab", buffering=0) as output:
        for number in range(40):
            output.write(b"%05d %s\n" % (number, b"x" * 1000))
            log_files.rotate_large(tmp_path, 5000, keep=2)
        assert log.stat().st_size <= 6100
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "kafka.log",
            "kafka.log.1",
            "kafka.log.2",
        ]
        assert all(path.stat().st_size <= 7000 for path in tmp_path.iterdir())
        output.write(b"last\n")
    lines = log_files.last_lines(log, 10)
    assert [line[:5] for line in lines] == [f"{n:05}" for n in range(31, 40)] + ["last"]
    assert b"\0" not in log.read_bytes()


def test_a_lower_setting_deletes_old_log_files(tmp_path: Path) -> None:
    for name in ("a.log", "a.log.1", "a.log.2", "a.log.3", "a.log.4"):
        (tmp_path / name).write_text(name)
    log_files.rotate(tmp_path / "a.log", keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    assert (tmp_path / "a.log.1").read_text() == "a.log"


def test_following_continues_after_a_log_rotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo\n")
    position = _show_new(log, "a", 0)
    log_files.rotate(log, keep=1)
    with log.open("a") as output:
        output.write("new\n")
    _show_new(log, "a", position)
    assert "new" in capsys.readouterr().out


def commands() -> list[list[str]]:
    """Every command there is, with words that its arguments take."""
    found: list[list[str]] = []

    def visit(command: object, words: list[str]) -> None:
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                visit(child, [*words, name])
            return
        arguments = [
            "README.md"
            for each in getattr(command, "params", [])
            if each.param_type_name == "argument" and each.required
        ]
        options: list[str] = []
        for each in getattr(command, "params", []):
            if each.param_type_name == "option" and each.required:
                options += [each.opts[0], "README.md"]
        found.append([*words, *arguments, *options])

    app: typer.Typer = build()
    visit(get_command(app), [])
    return found


PROGRAMS = [
    ["producers"],
    ["consumers", "indexing"],
    ["consumers", "analytics"],
    ["gateway"],
    ["adapters.provision"],
]


def run(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_every_program_reports_a_bad_setting_in_one_line(words: list[str]) -> None:
    done = run(words, WEAVIATE_GRPC_PORT="many", LOG_LEVEL="INFO")
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"error: WEAVIATE_GRPC_PORT: [^\n]+\n", done.stderr)


def test_every_program_is_in_the_test() -> None:
    mains = {path.parent.name for path in ROOT.glob("*/__main__.py")} - {"cli"}
    assert mains <= {words[0] for words in PROGRAMS}


@pytest.mark.slow
def test_every_command_reports_a_bad_setting_in_one_line(tmp_path: Path) -> None:
    """All of them in one process each would take a minute, so they are run in this one."""
    script = (
        "import io, json, os, sys\n"
        "from contextlib import redirect_stderr, redirect_stdout\n"
        "from cli.__main__ import main\n"
        "for words in json.load(sys.stdin):\n"
        "    sys.argv = ['image-search', *words]\n"
        "    reported = io.StringIO()\n"
        "    with redirect_stderr(reported), redirect_stdout(io.StringIO()):\n"
        "        try:\n"
        "            main()\n"
        "            status = 0\n"
        "        except SystemExit as end:\n"
        "            status = end.code\n"
        "        except BaseException as error:\n"
        "            status = repr(error)\n"
        "    print(json.dumps([words, status, reported.getvalue()]))\n"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        input=json.dumps(commands()),
        env={**os.environ, "GATEWAY_PORT": "many", "STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(commands()), done.stderr
    assert len(answers) > 25
    wrong = [
        answer
        for answer in answers
        if answer[1] != 1 or not re.fullmatch(r"error: GATEWAY_PORT: [^\n]+\n", answer[2])
    ]
    assert wrong == []


@pytest.mark.slow
def test_a_secret_is_not_repeated() -> None:
    done = run(["gateway"], API_KEYS="hunter2")
    assert done.returncode == 1
    assert "API_KEYS" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.slow
def test_an_invalid_log_level_is_reported() -> None:
    done = run(["gateway"], LOG_LEVEL="loud")
    assert done.returncode == 1
    assert done.stderr.startswith("error: LOG_LEVEL: ")
