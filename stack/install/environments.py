"""Python environments by uv, each from one lock.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from stack.install import commands

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
BUILD = REQUIREMENTS / "build.txt"
"""What a package without a wheel is built with."""
STAMP = ".installed"
MINIMUM_UV = (0, 8)
"""The oldest uv that takes the options and variables that are used here."""
PROBE_SECONDS = 10
DROPPED = frozenset(
    [
        "PYTHONHOME",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        *("UV_PYTHON", "UV_SYSTEM_PYTHON"),
        *("PIP_PREFIX", "PIP_TARGET", "PIP_USER"),
    ]
)
"""Variables that would lead uv or pip to another environment."""
PATH_LINE, PYTHON_LINE = "path ", "python "


class EnvironmentFailed(Exception):
    """An environment could not be made; the message ends with what the tool printed."""


def key_of(lock: Path) -> str:
    """A short hash of a lock's content."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def own_uv(path: str | None) -> str | None:
    """The uv on the PATH whose value is `path`, if it runs and is new enough."""
    found = shutil.which("uv", path=path)
    printed = _output([found, "--version"]) if found else None
    version = re.match(r"uv (\d+)\.(\d+)", printed or "")
    if version is None or (int(version[1]), int(version[2])) < MINIMUM_UV:
        return None
    return found


def _output(command: list[str]) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def uv(
    cache: Path,
    python: str,
    environment: dict[str, str],
    *,
    progress: commands.Progress | None = None,
) -> str:
    """The uv program: the pinned wheel, installed once into the per-user cache.

    Raises:
        EnvironmentFailed: it could not be installed.
    """
    progress = progress or commands.Silent()
    lock = REQUIREMENTS / "uv.txt"
    home = cache / f"venv-uv-{key_of(lock)}"
    program = home / "bin" / "uv"
    if (home / STAMP).exists() and os.access(program, os.X_OK):
        return str(program)
    what = "installing uv"
    try:
        with commands.exclusive(cache / ".uv.lock", what, progress):
            if (home / STAMP).exists() and os.access(program, os.X_OK):
                return str(program)
            _empty(home)
            make_it = [python, "-m", "venv", str(home)]
            commands.run(make_it, progress, what, environment=environment)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--no-input"]
            pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
            commands.run([*pip, "-r", str(lock)], progress, what, environment=environment)
            (home / STAMP).touch()
    except commands.CommandFailed as error:
        raise EnvironmentFailed(str(error)) from error
    return str(program)


class _Stamp(NamedTuple):
    """What is known of an environment; what an older version of this file left out is empty."""

    keys: list[str]
    path: str
    python: str


def _read_stamp(home: Path) -> _Stamp | None:
    try:
        lines = (home / STAMP).read_text().splitlines()
    except (OSError, ValueError):
        return None
    found = {PATH_LINE: "", PYTHON_LINE: ""}
    keys = []
    for line in lines:
        name = next((each for each in found if line.startswith(each)), None)
        if name is None:
            keys.append(line)
        else:
            found[name] = line[len(name) :]
    return _Stamp(keys, found[PATH_LINE], found[PYTHON_LINE])


def _write_stamp(home: Path, keys: list[str], python: str) -> None:
    lines = [*keys, PATH_LINE + os.path.realpath(home), PYTHON_LINE + python]
    part = home / f"{STAMP}.part"
    part.write_text("\n".join(lines) + "\n")
    part.replace(home / STAMP)


def _binary_interface(python: str) -> str | None:
    """What an interpreter's packages are made for, as `3.12 .cpython-312-x86_64-linux-gnu.so`.

    None if it does not run, as after an upgrade of the machine, or in a container.
    """
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return "{}.{} {}".format(*sys.version_info[:2], EXTENSION_SUFFIXES[0])
    program = "import sys; from importlib.machinery import EXTENSION_SUFFIXES as s; "
    program += "print('%d.%d' % sys.version_info[:2], s[0])"
    return _output([python, "-I", "-S", "-c", program])


def _is_in_place(home: Path, stamp: _Stamp) -> bool:
    """Whether an environment's interpreter runs, is the one it was made for, and nothing moved."""
    if stamp.path not in ("", os.path.realpath(home)):
        return False
    found = _binary_interface(str(home / "bin" / "python"))
    return found is not None and stamp.python in ("", found)


def is_complete(home: Path, lock: Path) -> bool:
    """Whether an environment holds what a lock, or a lock of more, names, and works here."""
    stamp = _read_stamp(home)
    return stamp is not None and key_of(lock) in stamp.keys and _is_in_place(home, stamp)


def make(
    home: Path,
    lock: Path,
    python: str,
    program: str,
    environment: dict[str, str],
    *,
    includes: list[Path] | None = None,
    progress: commands.Progress | None = None,
) -> None:
    """Make the environment `home` from a lock, or bring it up to date.

    One that was made elsewhere, for another Python, or not to its end, is emptied first.

    Args:
        home: folder of the environment.
        lock: pinned packages with their hashes.
        python: the interpreter it is made for, or a version such as `3.12` for uv to find or fetch.
        program: uv.
        environment: variables of the tool.
        includes: further locks whose packages are all in this one.
        progress: is told how far it is, and can end it.

    Raises:
        EnvironmentFailed: it could not be made; repeating is safe.
    """
    progress = progress or commands.Silent()
    what = f"setting up {home.name}"
    own = home / "bin" / "python"
    try:
        with commands.exclusive(home.with_name(f".{home.name.lstrip('.')}.lock"), what, progress):
            if is_complete(home, lock):
                return
            if os.sep in python and Path(python).parent.resolve() == own.parent.resolve():
                python = os.path.realpath(python)  # The link goes with the environment.
            current = _reusable(home, python)
            if current is None:
                _empty(home)
            else:
                _write_stamp(home, [], current)  # Nothing is known to be complete meanwhile.
            venv = [program, "venv", "--allow-existing", "--python", python, str(home)]
            commands.run(venv, progress, what, environment=environment)
            current = _binary_interface(str(own))
            if current is None:
                raise EnvironmentFailed(f"{own} does not run")
            _write_stamp(home, [], current)
            sync = [program, "pip", "sync", "--require-hashes", "--build-constraints", str(BUILD)]
            sync += ["--python", str(own), str(lock)]
            commands.run(sync, progress, what, environment=environment)
            _write_stamp(home, [key_of(each) for each in [lock, *(includes or [])]], current)
    except commands.CommandFailed as error:
        raise EnvironmentFailed(str(error)) from error


def _reusable(home: Path, python: str) -> str | None:
    """The binary interface of an environment that can be brought up to date, else None."""
    stamp = _read_stamp(home)
    if stamp is None or not _is_in_place(home, stamp):
        return None
    current = _binary_interface(str(home / "bin" / "python"))
    if os.sep in python:
        return current if current == _binary_interface(python) else None
    return current if current and current.split()[0] == python else None


def _empty(home: Path) -> None:
    """Delete what a folder contains, which a link may lead to."""
    if not home.is_dir():
        return
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def tool_environment(environment: dict[str, str], cache: Path) -> dict[str, str]:
    """The variables of uv and pip: nothing of ours is taken for the user's, or put there.

    Both use the machine's settings for where packages are and whom to trust.
    """
    # Here, because every command imports this module, and few install anything.
    from stack.install import package_index

    private = {
        "UV_CACHE_DIR": str(cache / "uv"),
        "UV_NO_PROGRESS": "1",
        # Where no project's settings are found: those of the current folder are not ours.
        "UV_PROJECT": ROOT.anchor,
        "UV_PYTHON_INSTALL_DIR": str(cache / "python"),
        "UV_PYTHON_INSTALL_BIN": "0",
    }
    kept = {name: value for name, value in environment.items() if name not in DROPPED}
    return {**kept, **package_index.variables(kept), **private}
