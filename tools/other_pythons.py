"""Runs the quick unit tests on each further Python that this machine has and we support."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stack.install import environments, pythons  # noqa: E402  # found by the line above


def main() -> int:
    """Returns the exit status: 1 if the tests fail on one of them."""
    lock = environments.REQUIREMENTS / "dev.txt"
    program = str(ROOT / ".venv" / "bin" / "uv")
    # The packages come from uv's cache, so that each environment takes seconds.
    variables = environments.tool_environment(dict(os.environ), ROOT / ".venv" / "cache")
    variables.pop("UV_CACHE_DIR")
    failed = []
    seen = {sys.version_info[:2]}
    for python in pythons.find_pythons(os.environ):
        if python.version in seen:
            continue
        seen.add(python.version)
        started = time.monotonic()
        home = ROOT / f".venv-{python.name}"
        environments.make(home, lock, python.path, program, variables)
        tests = [
            str(home / "bin" / "python"),
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadscope",
        ]
        done = subprocess.run([*tests, "-m", "not slow", "tests/unit"], cwd=ROOT, check=False)
        seconds = time.monotonic() - started
        print(f"Python {python.name}: exit status {done.returncode}, {seconds:.0f} s")
        if done.returncode != 0:
            failed.append(python.name)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
