"""The Unicode forms of a name.

`é` is usually one character (NFC) on Linux and Windows, and a letter followed by a combining mark
(NFD) in names that macOS has written. People see one name, programs two. Ids keep the form that the
file system returns; only a look-up by name tries the other forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product
from typing import Final
from unicodedata import normalize

MAX_FORMS: Final = 256
"""Maximum number of forms of one path: enough for eight parts with two forms each."""
MAX_CHARACTERS: Final = 1 << 18
"""The approximate total length of all forms of a path: a very long path has fewer forms."""
# HFS+ does not decompose these ranges, in which Unicode normalization loses information.
_CHANGED_BY_MACOS: Final = re.compile("[^\u2000-\u2fff\uf900-\ufaff\U0002f800-\U0002faff]+")

_TONES: Final = "\u0300\u0301\u0303\u0309\u0323"


def forms(path: str) -> tuple[str, ...]:
    """The path as given, then in its other forms; each part may have a different form.

    If there are too many forms, those come first that have one form up to some part of the path
    and another one after it.
    """
    if path.isascii():
        return (path,)
    most = min(MAX_FORMS, max(MAX_CHARACTERS // len(path), 3))
    return tuple(islice(dict.fromkeys(islice(_written(path), 4 * most)), most))


def _written(path: str) -> Iterator[str]:
    yield path
    parts = path.split("/")
    composed, apart = ([normalize(form, part) for part in parts] for form in ("NFC", "NFD"))
    yield "/".join(composed)
    yield "/".join(apart)
    choices = [_forms_of_part(part) for part in parts]
    for at in (number for number, choice in enumerate(choices) if len(choice) > 1):
        yield "/".join(composed[:at] + apart[at:])
        yield "/".join(apart[:at] + composed[at:])
    yield from map("/".join, product(*choices))


def _tone_apart(letter: str) -> str:
    """The form of Windows' Vietnamese keyboard: the vowel as one character, then its tone."""
    apart = normalize("NFD", letter)
    tones = "".join(mark for mark in apart if mark in _TONES)
    if not tones or len(apart) == len(tones):
        return letter
    return normalize("NFC", "".join(mark for mark in apart if mark not in _TONES)) + tones


def _forms_of_part(part: str) -> tuple[str, ...]:
    found = (
        part,
        normalize("NFC", part),
        normalize("NFD", part),
        _CHANGED_BY_MACOS.sub(lambda match: normalize("NFC", match[0]), part),
        _CHANGED_BY_MACOS.sub(lambda match: normalize("NFD", match[0]), part),
        "".join(map(_tone_apart, normalize("NFC", part))),
    )
    return tuple(dict.fromkeys(found))
