"""Checks of the machine's programs: its C library, Python, make and certificates.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack.install.finding import OK, PROBLEM, WARNING, Finding
from stack.install.pythons import (
    DOWNLOADED,
    PYTHONS,
    TRITON_PYTHONS,
    Python,
    Version,
    for_processes,
    for_triton,
)

MINIMUM_GLIBC = (2, 35)
"""Triton's wheel is built against it."""
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
"""Variables for a file of certificate authorities: OpenSSL, Go, uv and httpx read the first."""


def check_machine() -> Finding:
    """Linux on x86-64 with a C library that is new enough."""
    system, machine = platform.system(), platform.machine()
    compose = {"": "on this machine, use containers: docker compose up"}
    if (system, machine) != ("Linux", "x86_64"):
        text = f"{system} on {machine}; the programs of the servers are for Linux on x86-64"
        return Finding("machine", PROBLEM, text, compose)
    name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    parts = number.split(".")
    if name != "glibc" or not all(part.isdigit() for part in parts[:2]):
        return Finding("machine", PROBLEM, "Triton's program needs the C library glibc", compose)
    if (int(parts[0]), int(parts[1])) < MINIMUM_GLIBC:
        wanted = ".".join(map(str, MINIMUM_GLIBC))
        text = f"glibc is {number}, and Triton's program needs {wanted} or newer"
        return Finding("machine", PROBLEM, text, compose)
    return Finding("machine", OK, f"Linux on x86-64, glibc {number}")


def _names(versions: Sequence[Version]) -> str:
    return ", ".join(f"{a}.{b}" for a, b in sorted(versions))


def check_python(pythons: Sequence[Python], *, uv: bool) -> Finding:
    """A Python for our own processes, and a way to make environments: `venv`, or uv on the PATH."""
    chosen = for_processes(pythons, uv=uv)
    if chosen is not None:
        return Finding("Python", OK, f"{chosen.name}, {chosen.path}")
    if pythons:
        text = f"{pythons[0].path} lacks the module venv"
        return Finding("Python", PROBLEM, text, {"apt": f"sudo apt install {_venv(pythons[0])}"})
    text = f"Python {_names(PYTHONS)} is needed, and none of them is on the PATH"
    return Finding("Python", PROBLEM, text, _install_python(*PYTHONS))


def _venv(python: Python) -> str:
    return f"python{python.name}-venv"


def check_triton_python(pythons: Sequence[Python], *, downloads: Callable[[], bool]) -> Finding:
    """A Python for the models in Triton, with its shared library.

    Args:
        downloads: whether uv can fetch a Python; asked only if none is here.
    """
    subject = "Python for Triton"
    chosen = for_triton(pythons)
    if chosen is not None:
        return Finding(subject, OK, f"{chosen.name}, {chosen.library}")
    if downloads():
        return Finding(subject, OK, f"{DOWNLOADED}, which uv will fetch")
    bare = next((python for python in pythons if python.version in TRITON_PYTHONS), None)
    if bare is None:
        text = (
            f"the models in Triton need Python {_names(TRITON_PYTHONS)} with its shared library, "
            "and uv cannot reach its downloads from here"
        )
        return Finding(subject, PROBLEM, text, _install_python(*TRITON_PYTHONS))
    remedies = {
        "apt": f"sudo apt install libpython{bare.name}",
        "dnf": f"sudo dnf install python{bare.name}-libs",
        "pacman": "sudo pacman -S python",
        "brew": f"brew install python@{bare.name}",
    }
    text = f"Python {bare.name} is here without its shared library, libpython{bare.name}.so.1.0"
    return Finding(subject, PROBLEM, text, remedies)


def _install_python(*versions: Version) -> dict[str, str]:
    """For each package manager, how to install one of these versions, the first one at best."""
    names = [f"{a}.{b}" for a, b in versions]
    remedies = {
        "dnf": f"sudo dnf install python{DOWNLOADED}",
        "pacman": f"sudo pacman -S uv && uv python install {DOWNLOADED}",
        "brew": f"brew install python@{DOWNLOADED}",
    }
    packaged = next((name for name in names if _apt_has(f"libpython{name}")), None)
    if packaged:
        packages = f"python{packaged} python{packaged}-venv libpython{packaged}"
        remedies["apt"] = f"sudo apt install {packages}"
    elif shutil.which("apt-cache"):
        remedies["apt"] = (
            f"this release has no such package: where uv can reach its downloads, "
            f"uv python install {DOWNLOADED}; else docker compose up"
        )
    return remedies


def _apt_has(package: str) -> bool:
    if not shutil.which("apt-cache"):
        return False
    found = subprocess.run(
        ["apt-cache", "show", package],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return found.returncode == 0


def check_make() -> Finding:
    """`make`, which the README's two commands are."""
    found = shutil.which("make")
    if found:
        return Finding("make", OK, found)
    remedies = {
        "apt": "sudo apt install make",
        "dnf": "sudo dnf install make",
        "pacman": "sudo pacman -S make",
        "brew": "brew install make",
    }
    text = "make is missing; ./image-search up works without it"
    return Finding("make", WARNING, text, remedies)


def check_certificates(environment: Mapping[str, str]) -> Finding:
    """Files of certificate authorities that the environment names, as behind a proxy."""
    subject = "certificates"
    named = [(name, environment[name]) for name in CERTIFICATES if environment.get(name)]
    for name, value in named:
        try:
            content = Path(value).read_bytes()
        except OSError as error:
            text = f"{name}: {value} cannot be read ({error.strerror})"
            return Finding(subject, PROBLEM, text, {"": f"correct {name}, or unset it"})
        if b"-----BEGIN CERTIFICATE-----" not in content:
            text = f"{name}: {value} holds no certificate in PEM form"
            return Finding(subject, PROBLEM, text, {"": f"correct {name}, or unset it"})
    if named:
        return Finding(subject, OK, f"{named[0][0]}: {named[0][1]}, passed on to every step")
    return Finding(subject, OK, "those of the system")


def certificates(environment: Mapping[str, str]) -> dict[str, str]:
    """All of `CERTIFICATES`, each with its own value or the first one that is set."""
    value = next((environment[name] for name in CERTIFICATES if environment.get(name)), None)
    if value is None:
        return {}
    return {name: environment.get(name) or value for name in CERTIFICATES}
