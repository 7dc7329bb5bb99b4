"""What a machine must have before anything is installed, checked at once in the first second.

This file uses the standard library alone and the syntax of Python 3.9, for it runs before there is
an environment, by whatever Python the machine has.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.install.finding import PROBLEM, Finding, as_json, lines, managers
from stack.install.programs import (
    check_certificates,
    check_machine,
    check_make,
    check_python,
    check_triton_python,
)
from stack.install.pythons import can_download, find_pythons
from stack.install.resources import (
    GIB,
    check_disk,
    check_file_system,
    check_memory,
    check_ports,
)
from stack.install.variables import folder, setting

ROOT = Path(__file__).resolve().parents[2]
BUILD_BYTES = 4 * GIB
"""What compiling Weaviate takes in the cache for a while, its Go toolchain included."""
ENVIRONMENT_BYTES = 2 * GIB
"""What the Python environments take."""
STATE_BYTES = GIB


def folders(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The folder of the stack's state and that of the per-user cache (`StackSettings`)."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    # By its specification, a relative path is ignored.
    home = named if named.is_absolute() else Path("~/.cache")
    state = setting(environment, "STATE_DIR") or ROOT / ".stack"
    cache = setting(environment, "CACHE_DIR") or home / "image-search"
    return folder(state), folder(cache)


def check_all(environment: Mapping[str, str]) -> list[Finding]:
    """Every check."""
    state, cache = folders(environment)
    pythons = find_pythons(environment)
    uv = shutil.which("uv", path=environment.get("PATH")) is not None
    built = any(cache.glob("weaviate-*")) or bool(setting(environment, "WEAVIATE_BINARY"))
    running = (state / "run" / "stack.json").exists()
    findings = [check_machine(), check_python(pythons, uv=uv)]
    if not setting(environment, "TRITON_URL"):
        findings.append(check_triton_python(pythons, downloads=lambda: can_download(environment)))
    findings.append(check_make())
    needs = {ROOT: ENVIRONMENT_BYTES, state: STATE_BYTES, cache: GIB if built else BUILD_BYTES}
    if (ROOT / ".venv").exists():
        del needs[ROOT]
    findings += check_disk(needs)
    findings.append(check_memory())
    if not running:
        findings.append(check_ports(environment))
    findings.append(check_file_system(state))
    findings.append(check_certificates(environment))
    return findings


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
    findings = check_all(os.environ)
    if options.json:
        print(json.dumps([as_json(finding) for finding in findings], indent=2))
    else:
        for line in lines(findings, managers(), everything=True):
            print(line)
    return int(any(finding.state == PROBLEM for finding in findings))
