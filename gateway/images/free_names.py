"""Names in a folder that are taken or free, as people and file systems distinguish them."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from pathlib import Path
from typing import Final

from adapters.name_forms import forms

_NUMBERED: Final = re.compile(r"(.+) \(([1-9][0-9]{0,5})\)", re.DOTALL)


def existing_or_free(directory: Path, name: str, given: str) -> Path:
    """The path of an existing entry of this name in any Unicode form, else of the name itself.

    If several forms exist, the one that was `given` takes precedence.
    """
    candidates = list(forms(name))
    if unicodedata.normalize("NFC", given) == name:
        candidates.insert(0, given)
    for form in candidates:
        if os.path.lexists(directory / form):
            return directory / form
    return directory / name


def free_name(target: Path, max_bytes: int) -> str:
    """A name like the target's that is free in its folder, for instance `cat (2).jpg`.

    Without its suffix it has at most `max_bytes`.
    """
    try:
        taken = {_alike(path.name) for path in target.parent.iterdir()}
    except OSError:  # The folder may be written to, but not read.
        taken = {_alike(target.name)}
    stem, suffix = unicodedata.normalize("NFC", target.stem), target.suffix
    first = 2
    if numbered := _NUMBERED.fullmatch(stem):
        stem, first = numbered[1], int(numbered[2]) + 1
    return next(
        name
        for number in itertools.count(first)
        if _alike(name := _ending(stem, f" ({number})", max_bytes) + suffix) not in taken
    )


def _ending(stem: str, ending: str, max_bytes: int) -> str:
    while len((stem + ending).encode()) > max_bytes:
        stem = stem[:-1]
    return stem + ending


def _alike(name: str) -> str:
    """A key that is equal for names that some file system, or some person, treats as the same."""
    return unicodedata.normalize("NFC", name).casefold()
