"""Completion of commands and options by bash, zsh and fish, through Typer.

Typer's scripts call the program by its name, which is right for a program on the PATH, and bash's
by what was typed, in which `~` and `$HOME` are not expanded. This program is called by a path, so
all of them get this checkout's path here, by changing a private table of Typer. What the program
prints on standard error, for instance if it is gone, does not appear in the line that is typed.
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
CALLS: Final = {
    "bash": ("complete_bash ", "$1"),
    "zsh": ("complete_zsh ", "%(prog_name)s"),
    "fish": ("(commandline -cp) ", "%(prog_name)s"),
}
"""Shell -> where Typer's script for it calls the program, and by which words."""
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
    for shell, (before, words) in CALLS.items():
        scripts[shell] = scripts[shell].replace(before + words, f"{before}{path} 2>/dev/null")
