"""What the commands share to print results: the option `--json`, and JSON itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AlwaysJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, which this command does anyway.")
]


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
    """The rows as text, with aligned columns. Without rich, which takes long to import."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


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
