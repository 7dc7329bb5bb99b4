"""Steps that fill the per-user cache: each is done once, by one process, fully or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from stack.errors import StackError
from stack.install import commands, environments
from stack.install.progress import Lines, Say

POLL_SECONDS = 0.1
DISCARD_ATTEMPTS = 5


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
        with errors_of(what), self.exclusive(name):
            if target.is_dir():
                return target
            for stale in self.root.glob(f".{name}-*.part"):
                discard(stale)
            part = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=self.root))
            try:
                with self.progress.step(what):
                    make(part)
                    part.chmod(0o755)
                    part.rename(target)
            finally:
                discard(part)
        return target

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock for everything of this name."""
        return commands.exclusive(self.root / f".{name}.lock", f"preparing {name}", self.progress)


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """What may go wrong in a step, as a StackError."""
    try:
        yield
    except (commands.CommandFailed, environments.EnvironmentFailed) as error:
        raise StackError(str(error)) from error
    except OSError as error:
        raise StackError(f"{what}: {error}") from error


def remove_tree(path: Path) -> None:
    """Remove a folder even if it contains read-only folders, as Go's module cache does."""

    def writable(function: Callable[[str], object], name: str, _: object) -> None:
        Path(name).parent.chmod(0o755)
        if Path(name).is_dir():
            Path(name).chmod(0o755)
        function(name)

    shutil.rmtree(path, onerror=writable)


def discard(path: Path) -> None:
    """Remove a folder if that is possible.

    What a killed command has just been writing may appear while it is removed; what stays has the
    name of a part, which the next run removes.
    """
    for _ in range(DISCARD_ATTEMPTS):
        if not path.exists():
            return
        try:
            remove_tree(path)
        except OSError:
            time.sleep(POLL_SECONDS)


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
    """Run a preparation command and return its output: `commands.run` with our own variables.

    Raises:
        StackError: it failed, and the message ends with the last lines it printed; or
            `progress.stop` was called.
    """
    variables = {**os.environ, **(environment or {})}
    with errors_of(what):
        return commands.run(
            command, progress, what, environment=variables, cwd=cwd, expected_lines=expected_lines
        )
