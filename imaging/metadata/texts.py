"""Texts that are found in pictures: their bytes as characters, and names of cameras."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

TEXT_CHARACTERS: Final = 200
"""Kept of a text. Cameras write some twenty; a file may hold as many as it likes."""
_BYTES_LOOKED_AT: Final = 20 * TEXT_CHARACTERS
_BLANK: Final = "\0 \t\r\n"
_WORD: Final = re.compile(r"\w+")
_SAYS_NOTHING: Final = re.compile(
    "cameras?|co|company|corp|corporation|digital|electronics|film|gmbh|imaging|inc|ltd|optical"
    "|photo|the"
)
"""Words of makers' names by which no maker is known."""


def text_of(value: object) -> str:
    """The value, if it is a text or its bytes: up to the first NUL, in whatever encoding."""
    if isinstance(value, str):
        text = value.lstrip(_BLANK)[:_BYTES_LOOKED_AT]
        try:
            value = text.encode("latin-1")  # Pillow makes a character of each byte.
        except UnicodeEncodeError:
            return _up_to_nul(text)
    if not isinstance(value, bytes):
        return ""
    return _up_to_nul(_decoded(value.lstrip(_BLANK.encode())[:_BYTES_LOOKED_AT]))


def legible(text: str) -> str:
    """The text on one line, without what cannot be seen: what filters compare, and pages show."""
    shown = (_shown(character) for character in text)
    return " ".join(unicodedata.normalize("NFC", "".join(shown)).split())


def camera_name(make: str, model: str) -> str | None:
    """What a camera is called, of its maker's `name` and its own, which often holds the maker's."""
    both = _without_its_double(make, model) if _repeats(make, model) else f"{make} {model}"
    return both[:TEXT_CHARACTERS].strip() or None


def name(text: str) -> str:
    """The name that this text is; empty if there is nothing in it to call a thing by."""
    found = legible(text)[:TEXT_CHARACTERS].strip()
    return found if any(character.isalnum() for character in found) else ""


def _repeats(make: str, model: str) -> bool:
    maker, own = make.casefold(), model.casefold()
    if own.startswith(maker):
        return True
    maker_words, own_words = _WORD.findall(maker), _WORD.findall(own)
    if not (maker_words and own_words):
        return False
    if f" {' '.join(maker_words)} " in f" {' '.join(own_words)} ":
        return True
    # NIKON CORPORATION's NIKON D90, EASTMAN KODAK COMPANY's KODAK C813.
    first = own_words[0]
    return len(first) > 1 and first in maker_words and not _SAYS_NOTHING.fullmatch(first)


def _without_its_double(make: str, model: str) -> str:
    """`Canon EOS 5D` of `Canon Canon EOS 5D`."""
    doubled = f"{make} {make} ".casefold()
    while make and model[: len(doubled)].casefold() == doubled:
        model = model[len(make) + 1 :]
    return model


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cc":
        return " "
    return "" if category.startswith("C") else character


def _up_to_nul(text: str) -> str:
    head = text.lstrip(_BLANK).partition("\0")[0]
    return head.rstrip(_BLANK).encode("utf-8", "replace").decode()


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    head = data[:TEXT_CHARACTERS]
    if len(head) > 3 and any(head[::2]) and not any(head[1::2]):
        # What was stripped may have been half of a character.
        return (data + b"\0" * (len(data) % 2)).decode("utf-16-le", "replace")
    # What was cut off may have been the rest of a character.
    is_cut = len(data) >= _BYTES_LOOKED_AT and b"\0" not in data
    data = data.partition(b"\0")[0]
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, not is_cut)
    except UnicodeDecodeError:
        return data.strip(b"\xff").decode("latin-1")  # which memory is full of that was erased
