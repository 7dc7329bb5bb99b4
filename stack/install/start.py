"""What `./image-search` does first: checks the machine, makes the environment, runs the command.

This file uses the standard library alone and the syntax of Python 3.8: see `stack.preflight`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stack import preflight, python_environments  # noqa: E402  # found by the line above

HOME = ROOT / ".venv"
RUN, DEVELOP = "app", "dev"
"""The names of the two locks: what runs, and what tests and checks besides."""


def main(arguments: list[str]) -> int:
    """Run a command, after whatever it needs. Returns only if it was not started."""
    environment = {**os.environ, **preflight.certificates(os.environ)}
    if arguments[:1] == ["doctor"]:
        return preflight.main(arguments[1:])
    develop = arguments[:1] == ["--develop"]
    name = DEVELOP if develop else RUN
    lock = python_environments.REQUIREMENTS / f"{name}.txt"
    if not python_environments.is_complete(HOME, lock):
        status = set_up(lock, environment, develop=develop)
        if status:
            return status
    if develop:
        return 0
    python = str(HOME / "bin" / "python")
    os.execve(python, [python, "-m", "cli", *arguments], {**environment, "PYTHONPATH": str(ROOT)})


def set_up(lock: Path, environment: dict[str, str], *, develop: bool) -> int:
    """Check the machine and make the environment. Returns the exit status: 0 if it is there."""
    started = time.monotonic()
    findings = preflight.check_all(environment)
    problems = [finding for finding in findings if finding.state == preflight.PROBLEM]
    for line in preflight.lines(findings, preflight.managers(), everything=False):
        print(line, file=sys.stderr)  # noqa: T201
    if problems:
        print("nothing was changed; './image-search doctor' checks again", file=sys.stderr)  # noqa: T201
        return 1
    _, cache = preflight.folders(environment)
    python = preflight.for_processes(preflight.find_pythons(environment))
    assert python is not None  # noqa: S101  # without one there would be a problem
    tools = python_environments.tool_environment(environment, cache)
    print(
        f"setting up {HOME.name} with Python {python.version[0]}.{python.version[1]}",
        file=sys.stderr,
    )  # noqa: T201
    includes = [lock.with_name(f"{RUN}.txt")] if develop else []
    try:
        program = python_environments.uv(cache, python.path, tools)
        python_environments.make(HOME, lock, python.path, program, tools, includes=includes)
    except python_environments.EnvironmentFailed as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"set up in {time.monotonic() - started:.0f} s", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
