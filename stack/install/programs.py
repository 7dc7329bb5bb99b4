"""Checks of the machine's programs: its C library, Python, make and certificates.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack.install.finding import OK, PROBLEM, WARNING, Finding
from stack.install.packages import apt, install_library, install_python
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
CERTIFICATE_FOLDERS = ("REQUESTS_CA_BUNDLE", "PIP_CERT")
"""Those that may name a folder instead, as `SSL_CERT_DIR` does for the other programs."""
HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
DOWNLOAD_ADVICE = (
    "or let uv reach its downloads: HTTPS_PROXY names a proxy, UV_PYTHON_INSTALL_MIRROR a mirror"
)


def check_machine() -> Finding:
    """Linux on x86-64 with a C library that is new enough."""
    system, machine = platform.system(), platform.machine()
    compose = {"": "on this machine, use containers: docker compose up"}
    if (system, machine) != ("Linux", "x86_64"):
        text = f"{system} on {machine}; the programs of the servers are for Linux on x86-64"
        return Finding("machine", PROBLEM, text, compose)
    try:
        name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):  # Of musl, which does not know this name.
        name = number = ""
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


def check_python(
    pythons: Sequence[Python],
    *,
    uv: bool,
    downloads: Callable[[], bool | None] = lambda: False,
    others: Sequence[Python] = (),
) -> Finding:
    """A Python for our own processes, and a way to make environments.

    Args:
        pythons: those that our own processes can run on.
        uv: whether uv is there, or can be installed by any Python.
        downloads: whether uv can fetch a Python, as far as that is known; asked only if none is
            here.
        others: further ones, which could install uv if they had the module venv.
    """
    chosen = for_processes(pythons, uv=uv)
    if chosen is not None:
        return Finding("Python", OK, f"{chosen.name}, {chosen.path}")
    if pythons:
        text = f"{pythons[0].path} lacks the module venv"
        return Finding("Python", PROBLEM, text, {"apt": apt(_venv(pythons[0]))})
    suited = [f"{a}.{b}" for a, b in (*TRITON_PYTHONS, *PYTHONS)]
    text = f"one of {_names(PYTHONS)} is needed, and none of them is on the PATH"
    otherwise = ""
    if uv:
        found = _fetched("Python", text, downloads(), lambda: install_python(suited))
        if found is not None:
            return found
        text += "; uv cannot reach its downloads from here"
    elif others:
        otherwise = f"{apt(_venv(others[0]))}, and uv will fetch {DOWNLOADED}"
    remedies = install_python(list(dict.fromkeys(suited)), otherwise)
    return Finding("Python", PROBLEM, text, {**remedies, "": DOWNLOAD_ADVICE} if uv else remedies)


def _venv(python: Python) -> str:
    return f"python{python.name}-venv"


def _fetched(
    subject: str, text: str, reached: bool | None, remedies: Callable[[], Mapping[str, str]]
) -> Finding | None:
    """What there is to say if uv fetches a Python; None if it cannot.

    Args:
        text: what is missing.
        reached: whether uv can fetch one, as far as that is known.
    """
    if reached:
        return Finding(subject, OK, f"{DOWNLOADED}, which uv will fetch")
    if reached is None:
        text = f"{text}; uv will try to fetch {DOWNLOADED}, which may not be reached from here"
        return Finding(subject, WARNING, text, remedies())
    return None


def check_triton_python(
    pythons: Sequence[Python], *, downloads: Callable[[], bool | None]
) -> Finding:
    """A Python for the models in Triton, with its shared library.

    Args:
        downloads: whether uv can fetch a Python, as far as that is known; asked only if none is
            here.
    """
    subject = "Python for Triton"
    chosen = for_triton(pythons)
    if chosen is not None:
        return Finding(subject, OK, f"{chosen.name}, {chosen.library}")
    bare = list(dict.fromkeys(p.name for p in pythons if p.version in TRITON_PYTHONS))
    if bare:
        text = f"Python {' or '.join(bare)} is here without its shared library, "
        text += " or ".join(f"libpython{name}.so.1.0" for name in bare)
    else:
        text = f"the models in Triton need Python {_names(TRITON_PYTHONS)} with its shared library"

    def remedies() -> Mapping[str, str]:
        if bare:
            return install_library(bare)
        return install_python([f"{a}.{b}" for a, b in TRITON_PYTHONS])

    found = _fetched(subject, text, downloads(), remedies)
    if found is not None:
        return found
    text += "; uv cannot reach its downloads from here"
    return Finding(subject, PROBLEM, text, {**remedies(), "": DOWNLOAD_ADVICE})


def check_make() -> Finding:
    """`make`, which the README's two commands are."""
    found = shutil.which("make")
    if found:
        return Finding("make", OK, found)
    remedies = {
        "apt": apt("make"),
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
        wrong = _wrong_certificates(name, Path(value))
        if wrong:
            advice = {"": f"correct {name}, or unset it"}
            return Finding(subject, PROBLEM, f"{name}: {value} {wrong}", advice)
    if named:
        return Finding(subject, OK, f"{named[0][0]}: {named[0][1]}, passed on to every step")
    return Finding(subject, OK, "those of the system")


def _wrong_certificates(name: str, path: Path) -> str | None:
    """What is wrong with certificate authorities that a variable names."""
    try:
        if path.is_dir():
            if name not in CERTIFICATE_FOLDERS:
                return f"is a folder, and {name} names a file; SSL_CERT_DIR names a folder"
            # OpenSSL finds them by these names alone.
            if not any(HASHED.fullmatch(each.name) for each in path.iterdir()):
                return "is a folder without names for OpenSSL, which 'openssl rehash' makes"
        elif b"-----BEGIN CERTIFICATE-----" not in path.read_bytes():
            return "holds no certificate in PEM form"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def certificates(environment: Mapping[str, str]) -> dict[str, str]:
    """All of `CERTIFICATES`, each with its own value or the first one that is a file; a folder is
    passed on as `SSL_CERT_DIR`."""
    named = {name: environment[name] for name in CERTIFICATES if environment.get(name)}
    folders = [value for value in named.values() if os.path.isdir(value)]  # noqa: PTH112
    files = [value for value in named.values() if value not in folders]
    found = {**dict.fromkeys(CERTIFICATES, files[0]), **named} if files else dict(named)
    if folders and not environment.get("SSL_CERT_DIR"):
        found["SSL_CERT_DIR"] = folders[0]
    return found
