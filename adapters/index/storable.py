"""Selects the facts of an image that the index can store; the others are left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from adapters.index.facts import ImageMetadata, valid_coordinates, value_types
from adapters.index.port import STORED, ImageRecord

# Weaviate stores dates as nanoseconds in 64 bits; a date out of that range becomes another date.
EARLIEST: Final = datetime(1678, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2262, 4, 11, tzinfo=UTC)
"""Both lie just outside of the storable range: no stored date equals a bound of a filter."""
_TEXTS: Final = [name for name, kind in value_types(ImageMetadata).items() if kind is str]


def storable(record: ImageRecord) -> ImageRecord:
    """The record without the facts that cannot be stored unchanged."""
    position = valid_coordinates(record.latitude, record.longitude)
    latitude, longitude = position or (None, None)
    moments = {name: getattr(record, name) for name, kind in STORED.items() if kind is datetime}
    texts = {name: getattr(record, name) for name in _TEXTS}
    changed: dict[str, Any] = {
        **{name: _storable_moment(moment) for name, moment in moments.items()},
        **{name: _storable_text(text) for name, text in texts.items()},
        "latitude": latitude,
        "longitude": longitude,
    }
    return replace(record, **changed)


def _storable_moment(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment if EARLIEST < moment < LATEST else None


def _storable_text(text: str | None) -> str | None:
    """None for a text that no request can contain: no filter could match it."""
    if text is None or not text.strip():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return None if "\0" in text else text
