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

from stack.errors import StackError

Say = Callable[[str], None]
logger = logging.getLogger(__name__)
REPEAT_SECONDS = 15.0
OUTPUT_LINES = 25


class Cache:
    """Prepared folders `<root>/<name>-<key>/`, which exist only when they are complete."""

    def __init__(self, root: Path, say: Say) -> None:
        self.root = root
        self.say = say

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
            self.say(f"preparing {what}")
            started = time.monotonic()
            try:
                make(part)
                part.chmod(0o755)
                part.rename(target)
            finally:
                if part.exists():
                    remove_tree(part)
            self.say(f"prepared {what} in {time.monotonic() - started:.0f} s")
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
    say: Say,
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
        StackError: it failed; the message ends with the last lines it printed.
    """
    started = time.monotonic()
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
            while True:
                try:
                    process.wait(REPEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    output.seek(0)
                    lines = output.read().splitlines()
                    last = f": {lines[-1][:100]}" if lines else ""
                    share = (
                        f", about {min(99, 100 * len(lines) // expected_lines)} %"
                        if expected_lines
                        else ""
                    )
                    output.seek(0, os.SEEK_END)
                    say(f"  … {what}, {time.monotonic() - started:.0f} s{share}{last}")
        except BaseException:
            process.kill()
            raise
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        tail = "\n".join(text.splitlines()[-OUTPUT_LINES:])
        raise StackError(f"{what} failed (exit status {process.returncode}):\n{tail}")
    return text
