"""Which names a folder has, and which it has not, as people and file systems tell them apart."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from pathlib import Path
from typing import Final

from adapters.name_forms import forms

_NUMBERED: Final = re.compile(r"(.+) \(([1-9][0-9]{0,5})\)", re.DOTALL)


def there_or_free(directory: Path, name: str, given: str) -> Path:
    """What is there of this name in whatever Unicode form, else the path of the name itself.

    Of several forms that are there the one comes first that was `given`.
    """
    candidates = list(forms(name))
    if unicodedata.normalize("NFC", given) == name:
        candidates.insert(0, given)
    for form in candidates:
        if os.path.lexists(directory / form):
            return directory / form
    return directory / name


def free_name(target: Path, max_bytes: int) -> str:
    """A name like the target's that nothing in its folder has: `cat (2).jpg`.

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
    """What names have in common that some file system, or some person, takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
