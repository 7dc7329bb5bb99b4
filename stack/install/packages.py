"""How each package manager installs a Python.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from stack.install.pythons import TRITON_PYTHONS

OS_RELEASE = Path("/etc/os-release")
APT_LISTS = Path("/var/lib/apt/lists")
APT_PYTHONS = {
    "bookworm": ("3.11",),
    "trixie": ("3.13",),
    "jammy": ("3.11",),
    "noble": ("3.12",),
}
"""Release of Debian or Ubuntu -> the Pythons among its packages that we can use: 12, 13, 22.04 and
24.04. Others are looked up, which takes longer than all the checks."""
APT_SECONDS = 0.4
DNF = "sudo dnf install python3.12"
PACMAN = "install python312 from the AUR; the repositories have a newer Python alone"
BREW = "brew install python@3.12"


def release(path: Path = OS_RELEASE) -> str:
    """The code name of this release of Debian or Ubuntu, or of the Ubuntu that it is made from."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    values = {
        name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)
    }
    return values.get("UBUNTU_CODENAME") or values.get("VERSION_CODENAME", "")


def apt(packages: str, lists: Path = APT_LISTS) -> str:
    """The command that installs packages of Debian; it fetches their lists first where they are
    missing, as in a container."""
    command = f"sudo apt install {packages}"
    return command if any(lists.glob("*_Packages*")) else f"sudo apt update && {command}"


def apt_pythons(
    versions: Sequence[str], which: Callable[[str], str | None] = shutil.which
) -> tuple[list[str], bool]:
    """Those of these versions that are among the packages of this release, in the same order; and
    whether that is certain. The first one where there is no apt."""
    if not which("apt-get"):
        return list(versions[:1]), False
    known = APT_PYTHONS.get(release())
    found = _looked_up() if known is None else known
    return [each for each in versions if each in (found or ())], found is not None


def _looked_up() -> tuple[str, ...] | None:
    """The Pythons that apt has a shared library of; None if it does not say so in time, or has no
    lists of packages yet."""
    name = "libpython"
    program = shutil.which("apt-cache")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--quiet", "pkgnames", f"{name}3."],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=APT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = done.stdout.decode(errors="replace").split()
    return tuple(each[len(name) :] for each in found) or None


def install_python(versions: Sequence[str], otherwise: str = "") -> dict[str, str]:
    """For each package manager, how to install one of these versions with its shared library.

    Args:
        versions: the best one first.
        otherwise: what apt can do where it has none of them.
    """
    here, certain = apt_pythons(versions)
    if here:
        command = apt(f"python{here[0]} python{here[0]}-venv libpython{here[0]}")
    elif otherwise:
        command = otherwise
    elif certain:
        command = "this release has no such package; use containers: docker compose up"
    else:
        names = " or ".join(f"python{each}" for each in versions)
        command = f"this release may have no {names} ('sudo apt update' gets the list of packages)"
    return {"apt": command, "dnf": DNF, "pacman": PACMAN, "brew": BREW}


def install_library(versions: Sequence[str]) -> dict[str, str]:
    """For each package manager, how to install the shared library of one of these versions, whose
    program is there; another version with its library, where there is no package of it."""
    here, _ = apt_pythons(versions)
    remedies = install_python([f"{a}.{b}" for a, b in TRITON_PYTHONS])
    return {**remedies, "apt": apt(f"libpython{here[0]}")} if here else remedies
