"""The one way to make a dead letter: whatever the record was, the letter can be written and read.

A letter holds the record that it is about. That may be anything up to the largest message that the
broker takes, and Base64 makes it a third longer, so of a large one only the beginning is kept, with
the length and hash of the whole. Text is made printable and is cut, too.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from schemas.events import DeadLetter

VALUE_BYTES: Final = 256 * 1024
"""Kept of a value; an event of ours has at most a tenth. Brokers take 1 MiB unless told."""
KEY_BYTES: Final = 16 * 1024
"""Kept of a key; that of a picture has at most 4096 characters."""
TEXT_CHARACTERS: Final = 4096
ATTEMPTS: Final = 1_000_000
HISTORY: Final = 50
"""Letters before this one that are named; the header grows with every retry."""


def dead_letter(
    *,
    image_id: str,
    error_class: str,
    reason: str,
    key: bytes | None = None,
    value: bytes | None = None,
    value_limit: int = VALUE_BYTES,
    **others: Any,
) -> DeadLetter:
    """A letter about a record, or about a file that never became one.

    Args:
        image_id: the picture it is about, if that is known, else empty.
        error_class: what kind of problem.
        reason: for people.
        key: of the record, as it was read.
        value: of the record, as it was read.
        value_limit: bytes of the value to be kept.
        others: the letter's further fields.
    """
    if value is not None and len(value) > value_limit:
        others["original_value_bytes"] = len(value)
        others["original_value_sha256"] = hashlib.sha256(value).hexdigest()
        value = value[:value_limit]
    if key is not None and len(key) > KEY_BYTES:
        others["original_key_bytes"] = len(key)
        key = key[:KEY_BYTES]
    return DeadLetter(
        image_id=printable(image_id),
        error_class=error_class,
        reason=printable(reason),
        original_key=key,
        original_value=value,
        **others,
    )


def printable(text: str, most: int = TEXT_CHARACTERS) -> str:
    """The text as UTF-8 can hold it, at most so many characters of it."""
    whole = text[: most + 1].encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


def is_whole(letter: DeadLetter) -> bool:
    """Whether the letter holds all of its record, so that the record can be published again."""
    return letter.original_value_bytes is None and letter.original_key_bytes is None


def attempts_before(header: bytes | None) -> int:
    """The attempts that a retried record tells of; a foreign record may tell anything."""
    text = (header or b"").decode("ascii", "replace")
    return min(int(text), ATTEMPTS) if text.isdecimal() and len(text) < 12 else 0


def history(header: bytes | None) -> str:
    """The names of the letters before this one, the newest of them if there are many."""
    return " ".join((header or b"").decode("ascii", "replace")[-4096:].split()[-HISTORY:])
