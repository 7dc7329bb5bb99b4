"""What a picture says of itself, in EXIF or, where that says nothing, in XMP.

Each fact is read by itself, and what cannot be read, or cannot be true, is absent: damaged
metadata is no reason to lose a picture, nor the rest of what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from PIL import ExifTags, Image

from adapters.moments import moment
from adapters.places import EAST_OR_WEST, NORTH_OR_SOUTH, degrees, degrees_of_text, known_place
from adapters.texts import TEXT_CHARACTERS as TEXT_CHARACTERS
from adapters.texts import camera_name, name, text_of
from adapters.xmp import properties

logger = logging.getLogger(__name__)

T = TypeVar("T")
_BASE: Final = ExifTags.Base
_GPS: Final = ExifTags.GPS


@dataclass(frozen=True, slots=True)
class Description:
    """When, with what and where; `latitude` and `longitude` are in degrees.

    `taken_at` takes the local time for UTC where the file states no offset.
    """

    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class _Stamp(NamedTuple):
    """A moment in EXIF: its own text, the offset and the digits of a second in other tags."""

    text: str
    offset: str
    fraction: str


def loaded(load: Callable[[], Image.Exif]) -> Image.Exif:
    """The EXIF that `load` gives; empty if that fails."""
    return _tried(load, Image.Exif())


def described(exif: Image.Exif, xmp: object = None) -> Description:
    """What these tags, and this XMP packet, say, as far as they can be read."""
    details: Mapping[int, Any] = _tried(lambda: exif.get_ifd(ExifTags.IFD.Exif), {})
    gps: Mapping[int, Any] = _tried(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo), {})
    if xmp is None:
        xmp = _value(exif, ExifTags.Base.XMLPacket)
    more = _tried(lambda: properties(xmp), {})
    position = _tried(lambda: _position(gps, more), None)
    latitude, longitude = position or (None, None)
    return Description(
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
    """The first of all that is said which can be true."""
    for stamp in _stamps(exif, details, xmp):
        told = moment(stamp.text, offset=stamp.offset, fraction=stamp.fraction)
        if told is not None:
            return told
    return None


def _stamps(
    exif: Image.Exif, details: Mapping[int, Any], xmp: Mapping[str, str]
) -> Iterator[_Stamp]:
    """When it was taken, when it was scanned, and when the file was last changed."""

    def stamp(*tags: int) -> _Stamp:
        # Some write these into the first directory.
        found = ((_value(details, tag), _value(exif, tag)) for tag in tags)
        return _Stamp(*(text_of(there) or text_of(here) for there, here in found))

    taken, scanned, changed = stamps = (
        stamp(_BASE.DateTimeOriginal, _BASE.OffsetTimeOriginal, _BASE.SubsecTimeOriginal),
        stamp(_BASE.DateTimeDigitized, _BASE.OffsetTimeDigitized, _BASE.SubsecTimeDigitized),
        stamp(_BASE.DateTime, _BASE.OffsetTime, _BASE.SubsecTime),
    )
    yield _with_offset(taken, stamps)
    yield from _xmp_stamps(xmp, "exif:DateTimeOriginal", "photoshop:DateCreated")
    yield _with_offset(scanned, stamps)
    yield from _xmp_stamps(xmp, "exif:DateTimeDigitized", "xmp:CreateDate")
    yield _with_offset(changed, stamps)


def _with_offset(stamp: _Stamp, stamps: tuple[_Stamp, ...]) -> _Stamp:
    """With another's offset where it has none and that other tells no other moment."""
    offsets = (other.offset for other in stamps if other.text in ("", stamp.text))
    return stamp._replace(offset=stamp.offset or next(filter(None, offsets), ""))


def _xmp_stamps(xmp: Mapping[str, str], *names: str) -> Iterator[_Stamp]:
    yield from (_Stamp(xmp.get(each, ""), "", "") for each in names)


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
        degrees_of_text(xmp.get("exif:GPSLatitude", ""), None, NORTH_OR_SOUTH),
        degrees_of_text(xmp.get("exif:GPSLongitude", ""), None, EAST_OR_WEST),
    )


def _number(gps: Mapping[int, Any], tag: int) -> object:
    value = _value(gps, tag)
    return text_of(value) if isinstance(value, str | bytes) else value


def _hemisphere(gps: Mapping[int, Any], tag: int) -> str | None:
    value = _value(gps, tag)
    return None if value is None else text_of(value)
