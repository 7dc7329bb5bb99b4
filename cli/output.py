"""What the commands share to print results: the option `--json`, and JSON itself."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AlwaysJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, which this command does anyway.")
]
MINIMUM_SPACE: Final = 20
"""Columns of a terminal below which a long text is not wrapped."""


def print_json(value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print a value as indented JSON. `default` makes JSON of what is none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=default)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # A file's name that is not UTF-8, or a terminal that takes ASCII alone.
        text = json.dumps(value, indent=2, default=default)
    print(text, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text, with aligned columns. Without rich, which takes long to import.

    In a terminal, the words of a long last column continue below it.
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    space = shutil.get_terminal_size().columns - before if sys.stdout.isatty() else 0
    lines = []
    for row in rows:
        cells = [
            cell + " " * (width - _width(cell))
            for cell, width in zip(row[:-1], widths[:-1], strict=True)
        ]
        words = [row[-1]]
        if MINIMUM_SPACE <= space < _width(row[-1]):
            words = textwrap.wrap(row[-1], space, break_long_words=False) or words
        lines.append("  ".join([*cells, words[0]]).rstrip())
        lines += [" " * before + each for each in words[1:]]
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def finite(number: float | None) -> float | None:
    """Check an option's value; comparisons with the limits of a range let `nan` through."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter("must be a finite number")
    return number


def gigabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.2f} GB"


def note(text: str) -> None:
    """Print what is done meanwhile, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def tell(as_json: bool, text: str, **result: object) -> None:
    """Print the result: as text, or as JSON."""
    if as_json:
        print_json(result)
    else:
        print(text, flush=True)
