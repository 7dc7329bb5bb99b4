"""The Python interpreters of this machine, and what each can be used for.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PYTHONS = ((3, 13), (3, 12), (3, 11))
"""Versions that our own processes run on, best first."""
TRITON_PYTHONS = ((3, 12), (3, 11))
"""Versions that Triton's Python backend has a stub for and NumPy 1.26 a wheel."""

DOWNLOADED = "3.12"
"""The version that uv fetches where the machine has none for Triton."""
DOWNLOADS = "https://github.com/astral-sh/python-build-standalone/releases"
"""Where uv fetches it from, unless UV_PYTHON_INSTALL_MIRROR names another place."""
PROBE_SECONDS = 0.5

Version = tuple[int, int]


class Python(NamedTuple):
    """A Python interpreter on this machine."""

    path: str
    version: Version
    library: str | None
    """Its shared library, which Triton's Python backend loads; None if it is missing."""
    has_venv: bool

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
print(json.dumps([sys.executable, sys.version_info[:2], found[0] if found else None,
                  bool(u.find_spec("venv") and u.find_spec("ensurepip"))]))
"""


def describe_python(path: str) -> Python | None:
    """An interpreter's version, shared library and modules; None if it does not run."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _DESCRIBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        )
        found, version, library, has_venv = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Python(found or path, (version[0], version[1]), library, has_venv)


def find_pythons(environment: Mapping[str, str]) -> list[Python]:
    """The interpreters of `PYTHON` and the PATH that our own processes can run on, best first."""
    names = [environment.get("PYTHON", ""), *(f"python{a}.{b}" for a, b in PYTHONS), "python3"]
    search = environment.get("PATH")
    paths = [
        found for found in (shutil.which(name, path=search) for name in names if name) if found
    ]
    described = [describe_python(path) for path in dict.fromkeys(paths)]
    return [python for python in described if python is not None and python.version in PYTHONS]


def for_processes(pythons: Sequence[Python], *, uv: bool) -> Python | None:
    """The interpreter for our own processes.

    Args:
        uv: whether uv is on the PATH; without it, the interpreter must be able to install it.
    """
    return next((python for python in pythons if uv or python.has_venv), None)


def for_triton(pythons: Sequence[Python]) -> Python | None:
    """The interpreter for the models in Triton."""
    fitting = (p for p in pythons if p.version in TRITON_PYTHONS and p.library is not None)
    return next(fitting, None)


def can_download(environment: Mapping[str, str]) -> bool:
    """Whether uv can reach its downloads: one request, which takes `PROBE_SECONDS` at most."""
    # Here, because every command imports this module, and none but the first asks.
    import urllib.error
    import urllib.request

    address = environment.get("UV_PYTHON_INSTALL_MIRROR") or DOWNLOADS
    answered = threading.Event()

    def probe() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")  # noqa: S310
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()  # noqa: S310
        except urllib.error.HTTPError:
            pass  # A refusal is an answer: an address of a folder may well have no page.
        except (OSError, ValueError):
            return
        answered.set()

    # Looking up a name has no time limit of its own.
    threading.Thread(target=probe, daemon=True).start()
    return answered.wait(PROBE_SECONDS)
