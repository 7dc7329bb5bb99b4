"""Python environments by uv, each from one lock.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
STAMP = ".installed"


class EnvironmentFailed(Exception):
    """An environment could not be made; the message ends with what the tool printed."""


def key_of(lock: Path) -> str:
    """A short hash of a lock's content."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, so that one process at a time makes an environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-25:])
        raise EnvironmentFailed(f"{' '.join(command[:4])} … failed:\n{tail}")


def uv(cache: Path, python: str, environment: dict[str, str]) -> str:
    """The uv program: the pinned wheel, installed once into the per-user cache.

    Raises:
        EnvironmentFailed: it could not be installed.
    """
    lock = REQUIREMENTS / "uv.txt"
    home = cache / f"venv-uv-{key_of(lock)}"
    program = home / "bin" / "uv"
    if (home / STAMP).exists():
        return str(program)
    with exclusive(cache / ".uv.lock"):
        if (home / STAMP).exists():
            return str(program)
        shutil.rmtree(home, ignore_errors=True)
        _run([python, "-m", "venv", str(home)], environment)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--no-input", "--quiet"]
        pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
        _run([*pip, "-r", str(lock)], environment)
        (home / STAMP).touch()
    return str(program)


def is_complete(home: Path, lock: Path) -> bool:
    """Whether an environment holds what a lock, or a lock of more, names."""
    try:
        stamp = (home / STAMP).read_text().split()
    except OSError:
        return False
    # The interpreter is a link to the machine's, which an upgrade may have taken away.
    return key_of(lock) in stamp and (home / "bin" / "python").exists()


def make(
    home: Path,
    lock: Path,
    python: str,
    program: str,
    environment: dict[str, str],
    *,
    includes: list[Path] | None = None,
) -> None:
    """Make the environment `home` from a lock, or bring it up to date.

    Args:
        home: folder of the environment.
        lock: pinned packages with their hashes.
        python: the interpreter it is made for.
        program: uv.
        environment: variables of the tool.
        includes: further locks whose packages are all in this one.

    Raises:
        EnvironmentFailed: it could not be made; repeating is safe.
    """
    with exclusive(home.with_name(f".{home.name.lstrip('.')}.lock")):
        if is_complete(home, lock):
            return
        (home / STAMP).unlink(missing_ok=True)
        _run(
            [program, "venv", "--quiet", "--allow-existing", "--python", python, str(home)],
            environment,
        )
        sync = [program, "pip", "sync", "--quiet", "--require-hashes"]
        _run([*sync, "--python", str(home / "bin" / "python"), str(lock)], environment)
        keys = [key_of(each) for each in [lock, *(includes or [])]]
        (home / STAMP).write_text("\n".join(keys) + "\n")


def tool_environment(environment: dict[str, str], cache: Path) -> dict[str, str]:
    """The variables of uv and pip: nothing of ours is taken for the user's, or put there."""
    private = {"UV_CACHE_DIR": str(cache / "uv"), "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1"}
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_SYSTEM_PYTHON")
    kept = {name: value for name, value in environment.items() if name not in dropped}
    return {**kept, **private}
