"""The facts of an image: the one place that declares them.

The decoder's result, the index's record and the schema of Weaviate's collections are derived from
these fields. A new fact takes a field here and its source in `imaging.metadata.exif`; to filter by
it takes a field each in `adapters.index.port.ImageFilter` and `gateway.search.filters.Filters`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_type_hints

FACTS_VERSION: Final = 2
"""Incremented whenever other facts are read from the same file. Images that an earlier version has
indexed are then read again, in a replay that starts automatically (`offset_fingerprints`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """The facts in an image file's EXIF or XMP; None for those that are absent.

    `latitude` and `longitude` are in degrees. `taken_at` is the local time taken as UTC if
    the file states no offset.
    """

    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts(ImageMetadata):
    """All facts of an image's content.

    `width` and `height` are those of the upright original, in pixels. `facts_version` is the
    `FACTS_VERSION` by which the file was read; 0 where the index does not say.
    """

    width: int
    height: int
    media_type: str
    facts_version: int = 0


def names(kind: type[ImageMetadata]) -> tuple[str, ...]:
    """The names of the fields of `kind`."""
    return tuple(each.name for each in fields(kind))


def values(kind: type[ImageMetadata], source: ImageMetadata) -> dict[str, Any]:
    """Name -> value, of those fields of `source` that `kind` declares."""
    return {each.name: getattr(source, each.name) for each in fields(kind)}


def value_types(kind: type[ImageMetadata]) -> dict[str, type]:
    """Name -> type of the value when it is not None, of the fields of `kind`."""
    hints = get_type_hints(kind)
    return {name: _without_none(hints[name]) for name in names(kind)}


def _without_none(hint: Any) -> Any:
    if not isinstance(hint, UnionType):
        return hint
    return next(each for each in get_args(hint) if each is not NoneType)


def valid_coordinates(
    latitude: float | None, longitude: float | None
) -> tuple[float, float] | None:
    """Both numbers, if they are degrees of a place on Earth; else None."""
    if latitude is None or longitude is None:
        return None
    # Comparisons with NaN are false.
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return latitude, longitude
