"""The Python interpreters of this machine, and what each can be used for.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PYTHONS = ((3, 13), (3, 12), (3, 11))
"""Versions that our own processes run on, best first."""
TRITON_PYTHONS = ((3, 12), (3, 11))
"""Versions that Triton's Python backend has a stub for and NumPy 1.26 a wheel."""

OLDEST = (3, 9)
"""The oldest version that runs the first step, and can install uv."""
DOWNLOADED = "3.12"
"""The version that uv fetches where the machine has none for Triton, or for our own processes."""
DOWNLOADS = "https://github.com/astral-sh/python-build-standalone/releases"
"""Where uv fetches it from, unless UV_PYTHON_INSTALL_MIRROR names another place."""
PROBE_SECONDS = 0.5
DESCRIBE_SECONDS = 10.0

Version = tuple[int, int]


class Python(NamedTuple):
    """A Python interpreter on this machine."""

    path: str
    version: Version
    library: str | None
    """Its shared library, which Triton's Python backend loads; None if it is missing."""
    has_venv: bool
    fetched: bool = False
    """Whether uv has fetched it into the cache."""

    @property
    def name(self) -> str:
        """Its version, as `3.12`."""
        return f"{self.version[0]}.{self.version[1]}"


_DESCRIBE = """
import importlib.util as u, json, os, sys, sysconfig as s
name = s.get_config_var("INSTSONAME") or ""
folders = [s.get_config_var("LIBDIR") or "", s.get_config_var("LIBPL") or ""]
folders += ["/usr/lib/" + (s.get_config_var("MULTIARCH") or ""), "/usr/lib64", "/usr/lib"]
if ".so" not in name:
    name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
found = [os.path.join(f, name) for f in folders if f and os.path.exists(os.path.join(f, name))]
# That of an environment may be gone or of another version tomorrow.
base = getattr(sys, "_base_executable", None) or ""
print(json.dumps([base if os.path.exists(base) else sys.executable, sys.version_info[:2],
                  found[0] if found else None,
                  bool(u.find_spec("venv") and u.find_spec("ensurepip"))]))
"""


def describe_python(path: str) -> Python | None:
    """An interpreter's version, shared library and modules; None if it does not run."""
    return next(_describe([path]), None)


def _describe(paths: Iterable[str]) -> Iterator[Python]:
    """The interpreters that run, described at the same time: each takes a moment, and a wrapper
    of a version manager several."""
    begun = []
    for path in paths:
        try:
            process = subprocess.Popen(
                [path, "-I", "-S", "-c", _DESCRIBE],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            continue
        begun.append((path, process))
    end = time.monotonic() + DESCRIBE_SECONDS
    for path, process in begun:
        with process:
            try:
                output, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
                executable, version, library, has_venv = json.loads(output)
            except (subprocess.SubprocessError, ValueError):
                process.kill()
                continue
            if process.returncode == 0:
                yield Python(executable or path, (version[0], version[1]), library, has_venv)


def find_all(environment: Mapping[str, str], cache: Path | None = None) -> list[Python]:
    """The interpreters that can run the first step: of `PYTHON` and the PATH, best first; then
    those that uv has fetched into the cache, and the one that runs now."""
    names = [environment.get("PYTHON", ""), *(f"python{a}.{b}" for a, b in PYTHONS), "python3"]
    search = environment.get("PATH", os.defpath).split(os.pathsep)
    # A wrapper of a version manager goes by the name that it is called by.
    files: dict[tuple[str, str], str] = {}
    for path in [*_on_path(names, search), *_fetched(cache), sys.executable]:
        files.setdefault((os.path.basename(path), os.path.realpath(path)), path)  # noqa: PTH119
    inside = os.path.join(os.path.realpath(cache / "python"), "") if cache else "\0"  # noqa: PTH118
    found: dict[str, Python] = {}
    for python in _describe(files.values()):
        file = os.path.realpath(python.path)
        found.setdefault(file, python._replace(fetched=file.startswith(inside)))
    return [python for python in found.values() if python.version >= OLDEST]


def _on_path(names: Iterable[str], folders: Sequence[str]) -> Iterator[str]:
    """The programs of these names, in every folder: the first one may not be of use."""
    for name in filter(None, names):
        for folder in [""] if os.sep in name else folders:
            found = shutil.which(name, path=folder)
            if found:
                yield found


def _fetched(cache: Path | None) -> list[str]:
    """The interpreters that uv has put into the cache."""
    if cache is None:
        return []
    root = glob.escape(str(cache))
    names = (f"python/cpython-{a}.{b}*/bin/python{a}.{b}" for a, b in TRITON_PYTHONS)
    return [path for name in names for path in sorted(glob.glob(f"{root}/{name}"))]  # noqa: PTH207


def find_pythons(environment: Mapping[str, str], cache: Path | None = None) -> list[Python]:
    """Those of `find_all` that our own processes can run on."""
    return [python for python in find_all(environment, cache) if python.version in PYTHONS]


def for_processes(pythons: Sequence[Python], *, uv: bool) -> Python | None:
    """The interpreter for our own processes.

    Args:
        uv: whether uv is there or can be installed by another interpreter; without it, this one
            must be able to install it.
    """
    return next((python for python in pythons if uv or python.has_venv), None)


def for_triton(pythons: Sequence[Python]) -> Python | None:
    """The interpreter for the models in Triton: one that was fetched for it first, so that what
    else is on the PATH does not change their environment."""
    fitting = [p for p in pythons if p.version in TRITON_PYTHONS and p.library is not None]
    return next((p for p in fitting if p.fetched), fitting[0] if fitting else None)


def can_download(environment: Mapping[str, str]) -> bool | None:
    """Whether uv can reach its downloads, by one request; None if that is not known within
    `PROBE_SECONDS`, or an error says nothing about uv, which has its own certificates."""
    # Here, because every command imports this module, and none but the first asks.
    import ssl
    import urllib.error
    import urllib.parse
    import urllib.request

    offline = environment.get("UV_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    if offline or environment.get("UV_PYTHON_DOWNLOADS") == "never":
        return False
    address = environment.get("UV_PYTHON_INSTALL_MIRROR") or DOWNLOADS
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        return os.path.isdir(urllib.request.url2pathname(parts.path))  # noqa: PTH112
    if parts.scheme not in ("http", "https"):
        return False
    answers: list[bool | None] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")  # noqa: S310
            context = ssl.create_default_context(cafile=environment.get("SSL_CERT_FILE") or None)
            urllib.request.urlopen(request, timeout=PROBE_SECONDS, context=context).close()  # noqa: S310
        except urllib.error.HTTPError:
            answers.append(True)  # An address of a folder may well have no page.
        except urllib.error.URLError as error:
            answers.append(False if _is_unreachable(error.reason) else None)
        except (OSError, ValueError):
            answers.append(None)
        else:
            answers.append(True)

    # Looking up a name has no time limit of its own.
    request = threading.Thread(target=probe, daemon=True)
    request.start()
    request.join(PROBE_SECONDS)
    return answers[0] if answers else None


def _is_unreachable(reason: object) -> bool:
    """Whether nothing can be reached, by this error; not, for example, if time was too short."""
    import socket

    refused = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
    return isinstance(reason, socket.gaierror) or (
        isinstance(reason, OSError) and reason.errno in refused
    )
