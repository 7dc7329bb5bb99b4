"""What a machine must have before anything is installed, checked at once in the first second.

This file uses the standard library alone and the syntax of Python 3.9: it runs before there is an
environment, by whatever Python the machine has.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.install import environments
from stack.install.finding import PROBLEM, Finding, as_json, lines, managers
from stack.install.programs import (
    check_certificates,
    check_machine,
    check_make,
    check_python,
    check_triton_python,
)
from stack.install.pythons import PYTHONS, Python, can_download, find_all, for_processes
from stack.install.resources import (
    GIB,
    check_disk,
    check_file_system,
    check_memory,
    check_ports,
    check_writable,
    matching,
)
from stack.install.variables import folder, setting

ROOT = Path(__file__).resolve().parents[2]
LOCK = environments.REQUIREMENTS / "app.txt"
WEAVIATE = "weaviate-1.39.0"
"""Folder of the cache with the Weaviate that `binaries` compiles."""
BUILD_BYTES = 4 * GIB
"""What compiling Weaviate takes in the cache for a while, its Go toolchain included."""
ENVIRONMENT_BYTES = 2 * GIB
"""What the Python environments take."""
STATE_BYTES = GIB
SETUP, PREPARE, START = range(3)
"""What is about to be done: making the environment, fetching the servers too, starting them too.
Each needs what the one before needs."""
STATE_ENTRIES = ("kafka", "weaviate", "triton", "lake", "logs", "run", "run/lock", "thumbnails")
"""What an earlier command may have left in the state, which this one writes to."""


def folders(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The folder of the stack's state and that of the per-user cache (`StackSettings`)."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    # By its specification, a relative path is ignored.
    home = named if named.is_absolute() else Path("~/.cache")
    state = setting(environment, "STATE_DIR") or ROOT / ".stack"
    cache = setting(environment, "CACHE_DIR") or home / "image-search"
    return folder(state), folder(cache)


class Machine:
    """This machine, as these variables name its parts."""

    def __init__(self, environment: Mapping[str, str], home: Path = ROOT / ".venv") -> None:
        self.environment = environment
        self.home = home
        """The environment of our own processes."""
        self.state, self.cache = folders(environment)

    @functools.cached_property
    def own_uv(self) -> str | None:
        """A uv on the PATH that is new enough."""
        return environments.own_uv(self.environment.get("PATH"))

    @functools.cached_property
    def all_pythons(self) -> list[Python]:
        """Every interpreter that can run the first step, best first."""
        return find_all(self.environment, self.cache)

    @functools.cached_property
    def pythons(self) -> list[Python]:
        """Those that our own processes can run on."""
        return [python for python in self.all_pythons if python.version in PYTHONS]

    @property
    def installer(self) -> Python | None:
        """An interpreter that can install uv."""
        return next((python for python in self.all_pythons if python.has_venv), None)

    @property
    def has_uv(self) -> bool:
        """Whether uv is there, or can be installed."""
        return self.own_uv is not None or self.installer is not None

    @property
    def python(self) -> Python | None:
        """The interpreter for our own processes; None if uv has to fetch one."""
        return for_processes(self.pythons, uv=self.has_uv)

    @functools.cached_property
    def reaches_downloads(self) -> bool | None:
        """See `can_download`."""
        return can_download(self.environment)

    @property
    def has_weaviate(self) -> bool:
        """Whether Weaviate need not be compiled."""
        named = any(setting(self.environment, each) for each in ("WEAVIATE_URL", "WEAVIATE_BINARY"))
        path = self.environment.get("PATH")
        # Whether one on the PATH is of our version is asked when it is needed.
        found = any(shutil.which(each, path=path) for each in ("weaviate-server", "weaviate"))
        return named or found or os.path.isdir(self.cache / WEAVIATE)  # noqa: PTH112

    @property
    def is_prepared(self) -> bool:
        """Whether the servers that take long to prepare are there."""
        triton = setting(self.environment, "TRITON_URL") or matching(
            self.cache, f"venv-triton-*/{environments.STAMP}"
        )
        return self.has_weaviate and bool(triton)

    def check(self, purpose: int, *, complete: bool) -> list[Finding]:
        """Every check of what is needed for a purpose.

        Args:
            purpose: `SETUP`, `PREPARE` or `START`.
            complete: whether the environment is there already.
        """
        environment = self.environment
        findings = [
            check_python(
                self.pythons,
                uv=self.has_uv,
                downloads=lambda: self.reaches_downloads,
                others=self.all_pythons,
            ),
            check_certificates(environment),
        ]
        if purpose >= PREPARE:
            findings.insert(0, check_machine())
            if not setting(environment, "TRITON_URL"):
                downloads = lambda: self.reaches_downloads  # noqa: E731
                findings.insert(2, check_triton_python(self.pythons, downloads=downloads))
        if purpose >= START:
            findings.append(check_make())
        findings += self._check_folders(purpose, complete=complete)
        # The stack that runs already has taken them.
        running = os.path.exists(self.state / "run" / "stack.json")  # noqa: PTH110
        if purpose >= PREPARE and not running:
            findings.append(check_memory())
        if purpose >= START:
            if not running:
                findings.append(check_ports(environment))
            findings.append(check_file_system(self.state))
        return findings

    def _check_folders(self, purpose: int, *, complete: bool) -> list[Finding]:
        needs: dict[Path, int] = {}
        written: dict[Path, Sequence[str]] = {}
        if not complete:
            needs[self.home.parent] = ENVIRONMENT_BYTES
            written[self.home.parent] = (self.home.name, f"{self.home.name}.lock")
        if not complete or not self.is_prepared:
            written[self.cache] = ("uv", "python", ".*.lock")
        if purpose >= PREPARE:
            needs[self.cache] = GIB if self.has_weaviate else BUILD_BYTES
        if purpose >= START:
            needs[self.state] = STATE_BYTES
            written[self.state] = STATE_ENTRIES
        return check_writable(written) + check_disk(needs)


def purpose_of(arguments: Sequence[str]) -> int:
    """What a command is about to do."""
    if "--help" in arguments:
        return SETUP
    command = next((each for each in arguments if not each.startswith("-")), "")
    return {"prepare": PREPARE, "up": START}.get(command, SETUP)


def main(arguments: Sequence[str]) -> int:
    """`doctor`: print every finding. Returns the exit status: 1 if there is a problem."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="./image-search doctor",
        description="Check this machine: what is missing, and how to install it. "
        "Exits with status 1 if something is.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, for programs.")
    options = parser.parse_args(list(arguments))
    machine = Machine(os.environ)
    complete = environments.is_complete(machine.home, LOCK)
    findings = machine.check(START, complete=complete)
    if options.json:
        print(json.dumps([as_json(finding) for finding in findings], indent=2))
    else:
        for line in lines(findings, managers(), everything=True):
            print(line)
    return int(any(finding.state == PROBLEM for finding in findings))
