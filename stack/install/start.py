"""What `./image-search` does first: checks the machine, makes the environment, runs the command.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stack.install import environments, programs, standard_output, version  # noqa: E402  # found by the line above

HOME = ROOT / ".venv"
RUN, DEVELOP = "app", "dev"
"""The names of the two locks: what runs, and what tests and checks besides."""
COMPLETION = "_IMAGE_SEARCH_COMPLETE"
"""Variable that is set when a shell asks for completions (`cli.completion`)."""


def main(arguments: list[str]) -> int:
    """Run a command, after whatever it needs. Returns only if it was not started."""
    environment = {**os.environ, **programs.certificates(os.environ)}
    if arguments[:1] == ["doctor"]:
        from stack.install import preflight

        return preflight.main(arguments[1:])
    if arguments == ["--version"]:
        print(f"image-search {version.version()}")
        return 0
    develop = arguments[:1] == ["--develop"]
    name = DEVELOP if develop else RUN
    lock = environments.REQUIREMENTS / f"{name}.txt"
    if not environments.is_complete(HOME, lock):
        if COMPLETION in environment:
            return 1  # A key in a shell must not install anything.
        status = set_up(lock, environment, develop=develop)
        if status:
            return status
    if develop:
        return 0
    python = str(HOME / "bin" / "python")
    os.execve(python, [python, "-m", "cli", *arguments], {**environment, "PYTHONPATH": str(ROOT)})


def set_up(lock: Path, environment: dict[str, str], *, develop: bool) -> int:
    """Check the machine and make the environment. Returns the exit status: 0 if it is there."""
    from stack.install import finding, preflight, pythons

    started = time.monotonic()
    findings = preflight.check_all(environment)
    problems = [each for each in findings if each.state == finding.PROBLEM]
    for line in finding.lines(findings, finding.managers(), everything=False):
        print(line, file=sys.stderr)
    if problems:
        print("nothing was changed; './image-search doctor' checks again", file=sys.stderr)
        return 1
    _, cache = preflight.folders(environment)
    own_uv = shutil.which("uv", path=environment.get("PATH"))
    python = pythons.for_processes(pythons.find_pythons(environment), uv=own_uv is not None)
    assert python is not None  # noqa: S101  # without one there would be a problem
    tools = environments.tool_environment(environment, cache)
    print(f"setting up {HOME.name} with Python {python.name}", file=sys.stderr)
    includes = [lock.with_name(f"{RUN}.txt")] if develop else []
    try:
        program = own_uv or environments.uv(cache, python.path, tools)
        environments.make(HOME, lock, python.path, program, tools, includes=includes)
    except environments.EnvironmentFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"set up in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    with standard_output.reported():
        sys.exit(main(sys.argv[1:]))
