"""What the index can hold of a picture's facts; what it cannot is absent rather than altered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from adapters.index.facts import ImageMetadata, place, value_types
from adapters.index.port import STORED, ImageRecord

# Weaviate keeps dates as nanoseconds in 64 bits, and what lies beyond comes back as another date.
EARLIEST: Final = datetime(1678, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2262, 4, 11, tzinfo=UTC)
"""Both lie just outside of what is kept, so a filter may stop at them and still find nothing."""
_TEXTS: Final = [name for name, kind in value_types(ImageMetadata).items() if kind is str]


def kept(record: ImageRecord) -> ImageRecord:
    """The record with those of its facts that can be stored and found again as they are."""
    position = place(record.latitude, record.longitude)
    latitude, longitude = position or (None, None)
    moments = {name: getattr(record, name) for name, kind in STORED.items() if kind is datetime}
    texts = {name: getattr(record, name) for name in _TEXTS}
    changed: dict[str, Any] = {
        **{name: _kept_moment(moment) for name, moment in moments.items()},
        **{name: _kept_text(text) for name, text in texts.items()},
        "latitude": latitude,
        "longitude": longitude,
    }
    return replace(record, **changed)


def _kept_moment(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment if EARLIEST < moment < LATEST else None


def _kept_text(text: str | None) -> str | None:
    """A text that no request can hold would be no text that a filter can name."""
    if text is None or not text.strip():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return None if "\0" in text else text
