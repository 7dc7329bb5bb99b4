"""The table of `docs/formats.md`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.corpus.builders import INDEXED, Case

FILE: Final = Path(__file__).parents[2] / "docs" / "formats.md"
HEAD: Final = (
    "| file | becomes | media type | upright size | facts | in a browser |\n"
    "|---|---|---|---|---|---|\n"
)


def rows(cases: Iterable[Case]) -> str:
    """The table, as Markdown."""
    return HEAD + "".join(_row(case) for case in cases)


def _row(case: Case) -> str:
    if case.outcome != INDEXED:
        return f"| {case.name} | dead letter: {case.outcome} | | | | |\n"
    width, height = case.size
    facts = ", ".join(_formatted(fact) for fact in case.facts if fact is not None)
    return (
        f"| {case.name} | {INDEXED} | {case.media_type} | {width} x {height} "
        f"| {facts} | {case.in_a_browser} |\n"
    )


def _formatted(fact: datetime | str | float) -> str:
    return fact.isoformat(" ") if isinstance(fact, datetime) else str(fact)


def write(cases: Iterable[Case]) -> None:
    """Replace the table in the document."""
    before = FILE.read_text(encoding="utf-8").partition("| file |")[0]
    FILE.write_text(before + rows(cases), encoding="utf-8")
