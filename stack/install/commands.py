"""Commands that install something, and the locks that keep two of them apart.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

ATTACHED = Path(__file__).with_name("attached.py")
POLL_SECONDS = 0.1
OUTPUT_LINES = 25


class CommandFailed(Exception):
    """A command failed, or was interrupted; the message ends with the last lines it printed."""


class Progress(Protocol):
    """Who is told how far commands are, and can end them."""

    @property
    def interval(self) -> float:
        """Seconds between two reports of a command."""

    @property
    def stopped(self) -> bool:
        """Whether running commands shall end, and no further one start."""

    @property
    def say(self) -> Callable[[str], None]:
        """Shows one line."""

    def update(self, what: str, seconds: float, share: float | None, detail: str) -> None:
        """See `progress.Lines.update`."""


class Silent:
    """Shows no progress, only what a command waits for."""

    interval = 15.0
    stopped = False

    def say(self, text: str) -> None:
        """Print a line on standard error."""
        print(text, file=sys.stderr, flush=True)

    def update(self, what: str, seconds: float, share: float | None, detail: str) -> None:
        """See `progress.Lines.update`."""


_held = threading.local()
"""`descriptors`: of the lock files that this thread holds."""


@contextmanager
def exclusive(path: Path, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock file, so that one command at a time does something.

    The commands that this thread runs meanwhile hold it too: should this process be killed, the
    lock is free when they have ended, and nobody else works in their folder before.

    Args:
        path: the lock file.
        what: what the holder does, as `setting up .venv`.
        progress: is told when another command holds it, and can end the wait.

    Raises:
        CommandFailed: `progress` was stopped while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not _lock(file):
            progress.say(f"waiting for another command that is {what}")
            while not _lock(file):
                if progress.stopped:
                    raise CommandFailed(f"{what} was interrupted")
                time.sleep(POLL_SECONDS)
        if not hasattr(_held, "descriptors"):
            _held.descriptors = []
        _held.descriptors.append(file.fileno())
        try:
            yield
        finally:
            _held.descriptors.remove(file.fileno())


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # A file system without locks; flock does not say of which file.
        raise OSError(error.errno, f"cannot be locked ({error.strerror})", file.name) from error
    return True


def run(
    command: Sequence[str | Path],
    progress: Progress,
    what: str,
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    expected_lines: int | None = None,
) -> str:
    """Run a command and return its output; report its progress from time to time.

    Its processes end with it, and with this process in whichever way that ends (`attached`).

    Args:
        command: the program and its arguments.
        progress: is told how far it is, and can end it.
        what: what it does, as `building Weaviate`.
        environment: all of its variables.
        cwd: the folder it runs in.
        expected_lines: roughly the number of lines that it prints in total, from which the progress
            is estimated.

    Raises:
        CommandFailed: it failed, or `progress` was stopped.
    """
    # Here, because every command imports this module, and few install anything.
    import tempfile

    if progress.stopped:
        raise CommandFailed(f"{what} was interrupted")
    # Not the link in an environment, which the command may be about to replace.
    python = os.path.realpath(sys.executable)
    started = reported = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as output,
        subprocess.Popen(
            [python, "-I", "-S", str(ATTACHED), str(os.getpid()), *map(str, command)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
            pass_fds=getattr(_held, "descriptors", ()),
        ) as process,
    ):
        try:
            while process.poll() is None:
                if progress.stopped:
                    raise CommandFailed(f"{what} was interrupted")
                time.sleep(POLL_SECONDS)
                now = time.monotonic()
                if now - reported >= progress.interval:
                    reported = now
                    lines = _printed(output)
                    share = min(0.99, len(lines) / expected_lines) if expected_lines else None
                    detail = next(filter(_says_something, reversed(lines)), "").strip()[:100]
                    progress.update(what, now - started, share, detail)
        except BaseException:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            raise
        lines = _printed(output)
    if process.returncode != 0:
        tail = "\n".join(lines[-OUTPUT_LINES:])
        raise CommandFailed(f"{what} failed (exit status {process.returncode}):\n{tail}")
    return "\n".join(lines)


def _says_something(line: str) -> bool:
    """Whether a line is no bar, nor what is left of one."""
    return "\u2501" not in line and len(line.strip()) > len("kB/s")


def _printed(output: IO[str]) -> list[str]:
    # Not by reading, which would move the position at which the command writes.
    descriptor = output.fileno()
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return content.decode(errors="replace").splitlines()
