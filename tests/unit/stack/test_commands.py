"""Commands that install something end with the process that started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stack.errors import StackError
from stack.install import commands
from stack.install.preparation import Cache, discard
from stack.settings import ROOT

BUSY = """#!/bin/sh
# As a build does: starts further processes, and all of them write into the folder.
echo $$ > "$1/pids"
for name in a b; do
  sh -c 'echo $$ >> "$0/pids"; while :; do mkdir -p "$0/deep"; : > "$0/deep/$1.$$"; done' \
    "$1" $name &
done
touch "$1/started"
wait
"""
PREPARING = """
import sys
from pathlib import Path
from stack.install.preparation import Cache, run

def make(target):
    Path(sys.argv[1], "folder").write_text(str(target))
    run([sys.argv[2], target], cache.progress, "building the tool")

cache = Cache(Path(sys.argv[1]), print)
cache.get_or_prepare("tool", "1", "the tool", make)
"""
SERVERS = """
import sys
from pathlib import Path
from stack import processes
from stack.install.preparation import Cache, run
from stack.settings import StackSettings

def lasting(settings, cache):
    run(["sh", "-c", f"echo $$ >> {sys.argv[1]}/pids; sleep 600"], cache.progress, "compiling")

def second(settings, cache):
    lasting(settings, cache)

processes.weaviate, processes.kafka, processes.triton = lasting, lasting, second
processes.servers(StackSettings(), Cache(Path(sys.argv[1]), print))
"""


def silent(_: str) -> None:
    """For what says what it does."""


def until(check: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(pids: list[int]) -> list[int]:
    def runs(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if runs(pid)]


def pids_in(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def start(program: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background lets them ignore it, and their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    program = tmp_path / "busy"
    program.write_text(BUSY)
    program.chmod(0o755)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_step_whose_process_is_killed_leaves_no_process_and_is_repeated(
    tmp_path: Path, busy: Path, number: signal.Signals
) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    parent = start(PREPARING, root, busy)
    until((root / "folder").exists)
    until(lambda: (root / "folder").read_text())
    folder = Path((root / "folder").read_text())
    until((folder / "started").exists)
    until(lambda: len(pids_in(folder / "pids")) == 3)
    pids = pids_in(folder / "pids")
    os.killpg(parent.pid, number)
    parent.communicate(timeout=60)
    # At once, as the next command would.
    cache = Cache(root, silent)
    made = cache.get_or_prepare("tool", "1", "the tool", lambda to: (to / "x").touch())
    until(lambda: not running(pids), 10)
    assert [path.name for path in made.iterdir()] == ["x"]
    assert list(root.glob("*.part")) == []


@pytest.mark.slow
def test_a_command_that_outlives_all_still_holds_the_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from stack.install import commands\n"
        "lock, mark = map(Path, sys.argv[1:])\n"
        "with commands.exclusive(lock, 'working', commands.Silent()):\n"
        "    shell = f'setsid sh -c \"touch {mark}; sleep 2; rm {mark}\"'\n"
        "    commands.run(['sh', '-c', shell], commands.Silent(), 'x', environment=os.environ)\n"
    )
    lock, mark = tmp_path / "lock", tmp_path / "mark"
    parent = start(program, lock, mark)
    until(mark.exists)
    parent.kill()
    parent.communicate(timeout=60)
    said: list[str] = []

    class Heard(commands.Silent):
        def say(self, text: str) -> None:
            said.append(text)

    with commands.exclusive(lock, "working", Heard()):
        assert not mark.exists()
    assert said == ["waiting for another command that is working"]


@pytest.mark.slow
def test_ctrl_c_ends_the_preparation_of_all_servers(tmp_path: Path) -> None:
    parent = start(SERVERS, tmp_path)
    until(lambda: len(pids_in(tmp_path / "pids")) == 3)
    pids = pids_in(tmp_path / "pids")
    os.killpg(parent.pid, signal.SIGINT)
    started = time.monotonic()
    output, _ = parent.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert "KeyboardInterrupt" in output
    until(lambda: not running(pids), 10)


class Stopping(commands.Silent):
    """Is stopped by a test."""

    stopped = False


class TestStopping:
    @pytest.mark.slow
    def test_ends_a_wait_for_another_command(self, tmp_path: Path) -> None:
        progress = Stopping()
        timer = threading.Timer(0.3, lambda: setattr(progress, "stopped", True))
        with commands.exclusive(tmp_path / "lock", "working", progress):
            timer.start()
            with (
                pytest.raises(commands.CommandFailed, match="working was interrupted"),
                commands.exclusive(tmp_path / "lock", "working", progress),
            ):
                pass

    def test_lets_no_further_command_start(self, tmp_path: Path) -> None:
        progress = Stopping()
        progress.stopped = True
        with pytest.raises(commands.CommandFailed, match="interrupted"):
            commands.run(
                ["touch", tmp_path / "mark"], progress, "marking", environment=dict(os.environ)
            )
        assert not (tmp_path / "mark").exists()


def run(*command: str) -> str:
    return commands.run(command, commands.Silent(), "the step", environment=dict(os.environ))


def test_what_a_command_prints_is_returned() -> None:
    assert run("sh", "-c", "echo one; echo two >&2") == "one\ntwo"


def test_a_command_that_is_not_there_is_one_line() -> None:
    with pytest.raises(commands.CommandFailed, match=r"127\):\nno-such-tool: No such file"):
        run("no-such-tool")


def test_a_command_that_a_signal_ends_has_failed() -> None:
    with pytest.raises(commands.CommandFailed, match="exit status 137"):
        run("sh", "-c", "kill -9 $$")


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"the tool: .*file"):
        Cache(tmp_path / "file" / "cache", silent).get_or_prepare("t", "1", "the tool", discard)


@pytest.mark.slow
def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty")

    stale = tmp_path / ".tool-abc.part"
    stale.mkdir()
    monkeypatch.setattr("shutil.rmtree", full)
    made = Cache(tmp_path, silent).get_or_prepare("tool", "1", "the tool", lambda _: None)
    assert made.is_dir()
    assert stale.is_dir()
