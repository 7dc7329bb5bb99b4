"""Steps that fill the per-user cache: each is done once, by one process, fully or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stack.errors import StackError
from stack.install.progress import Lines, Say

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.1
OUTPUT_LINES = 25


class Cache:
    """Prepared folders `<root>/<name>-<key>/`, which exist only when they are complete."""

    def __init__(self, root: Path, progress: Lines | Say) -> None:
        self.root = root
        self.progress = progress if isinstance(progress, Lines) else Lines(progress)
        self.say = self.progress.say

    def get_or_prepare(self, name: str, key: str, what: str, make: Callable[[Path], None]) -> Path:
        """The folder that `make` fills; it is filled now unless an earlier run has completed it.

        It is filled under a temporary name and renamed at the end, so an interrupted run leaves
        nothing that looks complete.

        Raises:
            StackError: `make` failed.
        """
        target = self.root / f"{name}-{key}"
        if target.is_dir():
            return target
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            if target.is_dir():
                return target
            for stale in self.root.glob(f".{name}-*.part"):
                remove_tree(stale)
            part = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=self.root))
            try:
                with self.progress.step(what):
                    make(part)
                    part.chmod(0o755)
                    part.rename(target)
            finally:
                if part.exists():
                    remove_tree(part)
        return target

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.root / f".{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say(f"waiting for another process that is preparing {name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def remove_tree(path: Path) -> None:
    """Remove a folder even if it contains read-only folders, as Go's module cache does."""

    def writable(function: Callable[[str], object], name: str, _: object) -> None:
        Path(name).parent.chmod(0o755)
        if Path(name).is_dir():
            Path(name).chmod(0o755)
        function(name)

    shutil.rmtree(path, onerror=writable)


def key_of(*parts: Path | str) -> str:
    """A short hash of these files' contents and strings, for the name of what depends on them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def run(
    command: Sequence[str | Path],
    progress: Lines,
    what: str,
    *,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    expected_lines: int | None = None,
) -> str:
    """Run a preparation command and return its output; report its progress from time to time.

    `expected_lines` is roughly the number of lines that the command prints in total, from which the
    progress is estimated.

    Raises:
        StackError: it failed, and the message ends with the last lines it printed; or
            `progress.stop` was called.
    """
    started = time.monotonic()
    reported = started
    with (
        tempfile.TemporaryFile("w+", errors="replace") as output,
        subprocess.Popen(
            [str(word) for word in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        ) as process,
    ):
        try:
            while process.poll() is None:
                if progress.stopped:
                    raise StackError(f"{what} was interrupted")
                time.sleep(POLL_SECONDS)
                if time.monotonic() - reported >= progress.interval:
                    reported = time.monotonic()
                    lines = _lines_so_far(output)
                    share = min(0.99, len(lines) / expected_lines) if expected_lines else None
                    detail = lines[-1][:100] if lines else ""
                    progress.update(what, reported - started, share, detail)
        except BaseException:
            process.kill()
            raise
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        tail = "\n".join(text.splitlines()[-OUTPUT_LINES:])
        raise StackError(f"{what} failed (exit status {process.returncode}):\n{tail}")
    return text


def _lines_so_far(output: IO[str]) -> list[str]:
    # The command writes at the position that this file object shares with it.
    own = Path(f"/proc/self/fd/{output.fileno()}")
    return own.read_text(errors="replace").splitlines()
