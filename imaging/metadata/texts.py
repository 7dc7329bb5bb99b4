"""Decodes texts in metadata, and forms camera names from them."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

TEXT_CHARACTERS: Final = 200
"""Maximum characters of a text. Cameras write about twenty; a file may hold any number."""
_MAX_BYTES: Final = 20 * TEXT_CHARACTERS
_BLANK: Final = "\0 \t\r\n"
_WORD: Final = re.compile(r"\w+")
_GENERIC_WORDS: Final = re.compile(
    "cameras?|co|company|corp|corporation|digital|electronics|film|gmbh|imaging|inc|ltd|optical"
    "|photo|the"
)
"""Words in makers' names that do not identify a maker."""


def text_of(value: object) -> str:
    """A text, or the bytes of one, up to the first NUL; the encoding is guessed. Else ""."""
    if isinstance(value, str):
        text = value.lstrip(_BLANK)[:_MAX_BYTES]
        try:
            value = text.encode("latin-1")  # Pillow decodes each byte as one character.
        except UnicodeEncodeError:
            return _up_to_nul(text)
    if not isinstance(value, bytes):
        return ""
    return _up_to_nul(_decode(value.lstrip(_BLANK.encode())[:_MAX_BYTES]))


def legible(text: str) -> str:
    """The text on one line and without invisible characters, for filters and display."""
    shown = (_shown(character) for character in text)
    return " ".join(unicodedata.normalize("NFC", "".join(shown)).split())


def camera_name(make: str, model: str) -> str | None:
    """A camera's name from maker and model. Models often contain the maker's name already."""
    both = _without_repeated_maker(make, model) if _repeats(make, model) else f"{make} {model}"
    return both[:TEXT_CHARACTERS].strip() or None


def name(text: str) -> str:
    """The text as a name; empty if it has no letter or digit."""
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
    return len(first) > 1 and first in maker_words and not _GENERIC_WORDS.fullmatch(first)


def _without_repeated_maker(make: str, model: str) -> str:
    """The model without a repeated maker: `Canon EOS 5D` for `Canon Canon EOS 5D`."""
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


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    head = data[:TEXT_CHARACTERS]
    if len(head) > 3 and any(head[::2]) and not any(head[1::2]):
        # Stripping may have removed half of the last character.
        return (data + b"\0" * (len(data) % 2)).decode("utf-16-le", "replace")
    # Cutting may have removed a part of the last character.
    is_cut = len(data) >= _MAX_BYTES and b"\0" not in data
    data = data.partition(b"\0")[0]
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, not is_cut)
    except UnicodeDecodeError:
        return data.strip(b"\xff").decode("latin-1")  # erased memory is full of 0xff
