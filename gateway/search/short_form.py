"""The short form of a query, as people type it: `2:dog + ./a.jpg - fruit`.

Terms are joined by `+` and `-` with white space around them, so `black-and-white` and `C++` stay
what they are. A number and a colon before a term are its weight, unless a digit follows (`16:9`).
A term that starts with `./`, `../`, `~/` or `/` is the path of an image. Within double quotes
everything is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_TERMS: Final = 16
MAX_WEIGHT: Final = 100.0

_WORDS: Final = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_WEIGHT: Final = re.compile(r"(\d+(?:\.\d+)?):(?!\d)(.*)", re.DOTALL)
_IMAGE: Final = ("./", "../", "~/", "/")


class BadShortForm(ValueError):
    """The short form is malformed; the message says why."""


@dataclass(frozen=True, slots=True)
class ShortFormTerm:
    """One term: a text, or the path of an image as it was written."""

    weight: float
    text: str | None = None
    path: str | None = None


def parse(query: str) -> list[ShortFormTerm]:
    """The terms of a query.

    Raises:
        BadShortForm: a term is missing, or a weight or a quote is malformed.
    """
    parts: list[ShortFormTerm] = []
    sign, words = 1.0, list[str]()
    given = False
    for word in _WORDS.findall(query):
        if word not in ("+", "-"):
            words.append(word)
            continue
        if words:
            parts.append(_term(sign, " ".join(words)))
        elif given or parts:
            raise BadShortForm(f"a term is missing before {word}")
        sign, words, given = (1.0 if word == "+" else -1.0), [], True
    if not words:
        raise BadShortForm("a term is missing at the end" if given else "the query is empty")
    parts.append(_term(sign, " ".join(words)))
    if len(parts) > MAX_TERMS:
        raise BadShortForm(f"a query has at most {MAX_TERMS} terms")
    return parts


def _term(sign: float, words: str) -> ShortFormTerm:
    weight = 1.0
    if match := _WEIGHT.fullmatch(words):
        weight = float(match[1])
        words = match[2].strip()
        if not 0 < weight <= MAX_WEIGHT:
            raise BadShortForm(f"the weight {match[1]} is not above 0 and at most {MAX_WEIGHT:g}")
    if words.count('"') % 2:
        raise BadShortForm("a quote is not closed")
    quoted = words.startswith('"')
    plain = words.replace('"', "").strip()
    if not plain:
        raise BadShortForm("a term is empty")
    if not quoted and plain.startswith(_IMAGE):
        return ShortFormTerm(sign * weight, path=plain)
    return ShortFormTerm(sign * weight, text=plain)
