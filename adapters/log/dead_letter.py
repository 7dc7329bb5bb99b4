"""Makes dead letters that can be written and read whatever the record contains.

A letter contains the record that it is about. A record may be as large as the largest message that
the broker accepts, and Base64 makes it a third longer. So a large record is truncated, and the
letter states its length and hash. Texts are made printable and truncated, too.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from schemas.events import DeadLetter

VALUE_BYTES: Final = 256 * 1024
"""The longest value before it is truncated; our events have at most a tenth of it. The default
limit of brokers is 1 MiB."""
KEY_BYTES: Final = 16 * 1024
"""The longest key before it is truncated; an image id has at most 4096 characters."""
TEXT_CHARACTERS: Final = 4096
ATTEMPTS: Final = 1_000_000
HISTORY: Final = 50
"""Maximum number of earlier letters that are named; the header grows with every retry."""


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
    """A letter about a record, or about a file for which no record was written.

    Args:
        image_id: of the image, or empty if it is not known.
        error_class: the kind of problem.
        reason: a text for people.
        key: of the record, as it was read.
        value: of the record, as it was read.
        value_limit: bytes of the value before it is truncated.
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
    """The text with what UTF-8 cannot encode escaped, truncated to `most` characters."""
    whole = text[: most + 1].encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


def is_whole(letter: DeadLetter) -> bool:
    """Whether the letter contains its whole record, so that the record can be published again."""
    return letter.original_value_bytes is None and letter.original_key_bytes is None


def attempts_before(header: bytes | None) -> int:
    """The attempts that the header of a retried record states; 0 if it states no valid number."""
    text = (header or b"").decode("ascii", "replace")
    return min(int(text), ATTEMPTS) if text.isdecimal() and len(text) < 12 else 0


def history(header: bytes | None) -> str:
    """The names of the letters before this one; only the newest if there are many."""
    return " ".join((header or b"").decode("ascii", "replace")[-4096:].split()[-HISTORY:])
