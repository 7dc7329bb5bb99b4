"""Completion of commands and options by bash, zsh and fish, through Typer.

Typer's scripts call the program by its name, which is right for a program on the PATH. This one is
called by a path: bash's script calls what was typed, and those of the other shells get this
checkout's path here, by changing a private table of Typer.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

NAME: Final = "image-search"
"""Completion is registered for this name, whichever path to it was typed."""
VARIABLE: Final = "_IMAGE_SEARCH_COMPLETE"
PROGRAM: Final = Path(__file__).resolve().parents[1] / NAME
CALLS: Final = {"zsh": "complete_zsh %(prog_name)s", "fish": "(commandline -cp) %(prog_name)s"}
"""Shell -> how Typer's script for it calls the program."""
OPTIONS: Final = ("--install-completion", "--show-completion")


def is_asked(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a shell asks for completions, which are the only output then."""
    return VARIABLE in environment


def typed(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The words after the program's name that a shell wants to have completed."""
    line = environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS", "")
    return line.split()[1:]


def wants_script(arguments: Sequence[str]) -> bool:
    """Whether the script itself is to be shown or installed."""
    return any(each in OPTIONS for each in arguments)


def use_path() -> None:
    """Let the scripts call this checkout's program."""
    from typer import _completion_shared as typers

    scripts = typers._completion_scripts
    path = shlex.quote(str(PROGRAM)).replace("%", "%%")
    for shell, call in CALLS.items():
        scripts[shell] = scripts[shell].replace(call, call.replace("%(prog_name)s", path))
