"""Reads an image's metadata from EXIF or, where EXIF has none, from XMP.

Each fact is read independently. A fact that is unreadable or impossible is None, so damaged
metadata affects neither the image nor its other facts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from PIL import ExifTags, Image

from adapters.index.facts import ImageMetadata
from imaging.metadata.capture_time import offset_of, parse_time
from imaging.metadata.coordinates import (
    EAST_OR_WEST,
    NORTH_OR_SOUTH,
    degrees,
    degrees_of_text,
    known_coordinates,
)
from imaging.metadata.texts import TEXT_CHARACTERS as TEXT_CHARACTERS
from imaging.metadata.texts import camera_name, name, text_of
from imaging.metadata.xmp import properties

logger = logging.getLogger(__name__)

T = TypeVar("T")
_BASE: Final = ExifTags.Base
_GPS: Final = ExifTags.GPS
_STAMPS: Final = (
    (_BASE.DateTimeOriginal, _BASE.OffsetTimeOriginal, _BASE.SubsecTimeOriginal),
    (_BASE.DateTimeDigitized, _BASE.OffsetTimeDigitized, _BASE.SubsecTimeDigitized),
    (_BASE.DateTime, _BASE.OffsetTime, _BASE.SubsecTime),
)
"""Tags of a time, of its offset from UTC and of its fraction of a second."""


class _Stamp(NamedTuple):
    """A time in EXIF: its texts, and from other tags the offset and the digits of a second."""

    texts: list[str]
    offset: str
    fraction: str

    def moments(self, others: Sequence[_Stamp]) -> Iterator[datetime | None]:
        """The time of each text; a missing offset is taken from another stamp of the same time."""
        for text in self.texts:
            other_offsets = (each.offset for each in others if {*each.texts} <= {"", text})
            offsets = (
                each for each in (self.offset, *other_offsets) if offset_of(each) is not None
            )
            yield parse_time(text, offset=next(offsets, ""), fraction=self.fraction)


def load_exif(load: Callable[[], Image.Exif]) -> Image.Exif:
    """The EXIF that `load` returns; empty if that fails."""
    return _or_default(load, Image.Exif())


def read_metadata(exif: Image.Exif, xmp: object = None) -> ImageMetadata:
    """The facts in these tags and this XMP packet, as far as they can be read."""
    details: Mapping[int, Any] = _or_default(lambda: exif.get_ifd(ExifTags.IFD.Exif), {})
    gps: Mapping[int, Any] = _or_default(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo), {})
    if xmp is None:
        xmp = _value(exif, ExifTags.Base.XMLPacket)
    more: Mapping[str, str] = _or_default(lambda: properties(xmp), {})
    position = _or_default(lambda: _position(gps, more), None)
    latitude, longitude = position or (None, None)
    return ImageMetadata(
        taken_at=_or_default(lambda: _taken_at(exif, details, more), None),
        camera=_or_default(lambda: _camera(exif, more), None),
        latitude=latitude,
        longitude=longitude,
    )


def _or_default(read: Callable[[], T], otherwise: T) -> T:
    """What `read` returns; `otherwise` after any error, as Pillow raises many for damaged EXIF."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:
        logger.info("metadata ignored: %s: %s", type(error).__name__, error)
        return otherwise


def _value(tags: Mapping[int, Any] | Image.Exif, tag: int) -> Any:
    return _or_default(lambda: tags.get(tag), None)


def _taken_at(
    exif: Image.Exif, details: Mapping[int, Any], xmp: Mapping[str, str]
) -> datetime | None:
    """The first time that is possible, of the times taken, scanned and last changed."""

    def texts(tag: int) -> list[str]:
        # Each tag belongs in one directory, but some programs write it into the other.
        return [text_of(_value(tags, tag)) for tags in (details, exif)]

    taken, scanned, changed = kinds = [
        _Stamp(texts(text), max(texts(offset)), max(texts(fraction)))
        for text, offset, fraction in _STAMPS
    ]
    candidates = chain(
        taken.moments(kinds),
        _in_xmp(xmp, "exif:DateTimeOriginal", "photoshop:DateCreated"),
        scanned.moments(kinds),
        _in_xmp(xmp, "exif:DateTimeDigitized", "xmp:CreateDate"),
        changed.moments(kinds),
    )
    return next((each for each in candidates if each is not None), None)


def _in_xmp(xmp: Mapping[str, str], *names: str) -> Iterator[datetime | None]:
    return (parse_time(xmp.get(each, "")) for each in names)


def _camera(exif: Image.Exif, xmp: Mapping[str, str]) -> str | None:
    make, model = (
        name(text_of(_value(exif, tag))) or name(xmp.get(other, ""))
        for tag, other in ((_BASE.Make, "tiff:Make"), (_BASE.Model, "tiff:Model"))
    )
    return camera_name(make, model)


def _position(gps: Mapping[int, Any], xmp: Mapping[str, str]) -> tuple[float, float] | None:
    latitude = degrees(
        _number(gps, _GPS.GPSLatitude), _hemisphere(gps, _GPS.GPSLatitudeRef), NORTH_OR_SOUTH
    )
    longitude = degrees(
        _number(gps, _GPS.GPSLongitude), _hemisphere(gps, _GPS.GPSLongitudeRef), EAST_OR_WEST
    )
    return known_coordinates(latitude, longitude) or known_coordinates(
        degrees_of_text(
            xmp.get("exif:GPSLatitude", ""), xmp.get("exif:GPSLatitudeRef"), NORTH_OR_SOUTH
        ),
        degrees_of_text(
            xmp.get("exif:GPSLongitude", ""), xmp.get("exif:GPSLongitudeRef"), EAST_OR_WEST
        ),
    )


def _number(gps: Mapping[int, Any], tag: int) -> object:
    value = _value(gps, tag)
    return text_of(value) if isinstance(value, str | bytes) else value


def _hemisphere(gps: Mapping[int, Any], tag: int) -> str | None:
    value = _value(gps, tag)
    return None if value is None else text_of(value)
