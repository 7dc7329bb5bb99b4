"""What a picture says of itself, in EXIF or, where that says nothing, in XMP.

Each fact is read by itself, and what cannot be read, or cannot be true, is absent: damaged
metadata is no reason to lose a picture, nor the rest of what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from PIL import ExifTags, Image

from adapters.index.facts import ImageMetadata
from imaging.metadata.capture_time import moment, offset_of
from imaging.metadata.coordinates import (
    EAST_OR_WEST,
    NORTH_OR_SOUTH,
    degrees,
    degrees_of_text,
    known_place,
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
"""Tags of a text, of its offset from UTC and of its fraction of a second."""


class _Stamp(NamedTuple):
    """A moment in EXIF: its texts, and in other tags the offset and the digits of a second."""

    texts: list[str]
    offset: str
    fraction: str

    def moments(self, others: Sequence[_Stamp]) -> Iterator[datetime | None]:
        """As told by each text; with another's offset where that tells no other moment."""
        for text in self.texts:
            others_too = (each.offset for each in others if {*each.texts} <= {"", text})
            told = (each for each in (self.offset, *others_too) if offset_of(each) is not None)
            yield moment(text, offset=next(told, ""), fraction=self.fraction)


def loaded(load: Callable[[], Image.Exif]) -> Image.Exif:
    """The EXIF that `load` gives; empty if that fails."""
    return _tried(load, Image.Exif())


def described(exif: Image.Exif, xmp: object = None) -> ImageMetadata:
    """What these tags, and this XMP packet, say, as far as they can be read."""
    details: Mapping[int, Any] = _tried(lambda: exif.get_ifd(ExifTags.IFD.Exif), {})
    gps: Mapping[int, Any] = _tried(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo), {})
    if xmp is None:
        xmp = _value(exif, ExifTags.Base.XMLPacket)
    more: Mapping[str, str] = _tried(lambda: properties(xmp), {})
    position = _tried(lambda: _position(gps, more), None)
    latitude, longitude = position or (None, None)
    return ImageMetadata(
        taken_at=_tried(lambda: _taken_at(exif, details, more), None),
        camera=_tried(lambda: _camera(exif, more), None),
        latitude=latitude,
        longitude=longitude,
    )


def _tried(read: Callable[[], T], otherwise: T) -> T:
    """What `read` gives. No list of what Pillow raises for damaged EXIF is ever complete."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:
        logger.info("metadata ignored: %s: %s", type(error).__name__, error)
        return otherwise


def _value(tags: Mapping[int, Any] | Image.Exif, tag: int) -> Any:
    return _tried(lambda: tags.get(tag), None)


def _taken_at(
    exif: Image.Exif, details: Mapping[int, Any], xmp: Mapping[str, str]
) -> datetime | None:
    """The first that can be true: when it was taken, scanned, and when the file last changed."""

    def texts(tag: int) -> list[str]:
        # Each belongs into one directory, and some write it into the other.
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
    return next((told for told in candidates if told is not None), None)


def _in_xmp(xmp: Mapping[str, str], *names: str) -> Iterator[datetime | None]:
    return (moment(xmp.get(each, "")) for each in names)


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
    return known_place(latitude, longitude) or known_place(
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
