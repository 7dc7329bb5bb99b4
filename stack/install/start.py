"""What `./image-search` does first: checks the machine, makes the environment, runs the command.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stack.install import environments, programs, standard_output, version  # noqa: E402  # found by the line above

if TYPE_CHECKING:
    from stack.install import preflight

HOME = ROOT / ".venv"
RUN, DEVELOP = "app", "dev"
"""The names of the two locks: what runs, and what tests and checks besides."""
COMPLETION = "_IMAGE_SEARCH_COMPLETE"
"""Variable that is set when a shell asks for completions (`cli.completion`)."""
SERVERS = ("up", "prepare")
"""Commands that prepare the servers, for which more of the machine is checked."""
STOPS = ("down", "clean")
"""Commands that work after an update of the checkout with the environment from before it, so that
nothing that is missing by now keeps a stack running."""
STOP_MODULES = "cli.__main__, stack.stopping"
"""What these commands import."""


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
    lock = environments.REQUIREMENTS / f"{DEVELOP if develop else RUN}.txt"
    complete = environments.is_complete(HOME, lock)
    if not complete and COMPLETION in environment:
        return 1  # A key in a shell must not install anything.
    command = next((each for each in arguments if not each.startswith("-")), "")
    status = 0
    if not complete and command in STOPS and _can_stop(environment):
        pass
    elif not complete or command in SERVERS:
        status = set_up(lock, environment, arguments, complete=complete, develop=develop)
    if status or develop:
        return status
    python = str(HOME / "bin" / "python")
    # -P: a file `cli.py` in the current folder is not ours.
    words = [python, "-P", "-m", "cli", *arguments]
    os.execve(python, words, {**environment, "PYTHONPATH": str(ROOT)})


def _can_stop(environment: dict[str, str]) -> bool:
    """Whether there is an environment, of an earlier checkout, that `STOPS` can run in."""
    python = str(HOME / "bin" / "python")
    if not (HOME / environments.STAMP).exists():
        return False
    variables = {**environment, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [python, "-P", "-c", f"import {STOP_MODULES}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=variables,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def set_up(
    lock: Path,
    environment: dict[str, str],
    arguments: list[str],
    *,
    complete: bool,
    develop: bool,
) -> int:
    """Check the machine for what a command needs, and make the environment unless it is complete.

    Returns:
        The exit status: 0 if the environment is there.
    """
    from stack.install import finding, preflight

    machine = preflight.Machine(environment, HOME)
    if complete and machine.is_prepared:
        return 0
    started = time.monotonic()
    findings = machine.check(preflight.purpose_of(arguments), complete=complete)
    for line in finding.lines(findings, finding.managers(), everything=False):
        print(line, file=sys.stderr)
    if any(each.state == finding.PROBLEM for each in findings):
        print("nothing was changed; './image-search doctor' checks again", file=sys.stderr)
        return 1
    if complete:
        return 0
    includes = [lock.with_name(f"{RUN}.txt")] if develop else []
    try:
        make(machine, lock, environment, includes)
    except environments.EnvironmentFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"set up in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


def make(
    machine: preflight.Machine, lock: Path, environment: dict[str, str], includes: list[Path]
) -> None:
    """Make the environment with the best Python, or with one that uv fetches.

    Raises:
        EnvironmentFailed: it could not be made.
    """
    from stack.install.elapsed import elapsed
    from stack.install.pythons import DOWNLOADED

    tools = environments.tool_environment(environment, machine.cache)
    python, installer = machine.python, machine.installer
    name, path = (python.name, python.path) if python else (DOWNLOADED, DOWNLOADED)
    with elapsed(f"setting up {HOME.name} with Python {name}"):
        program = machine.own_uv
        if program is None:
            assert installer is not None  # noqa: S101  # without one there would be a problem
            program = environments.uv(machine.cache, installer.path, tools)
        environments.make(HOME, lock, path, program, tools, includes=includes)


def run(arguments: list[str]) -> int:
    """`main`, with what may go wrong on a machine as one line."""
    try:
        with standard_output.reported():
            return main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
