"""What a picture says of itself in EXIF. Damaged metadata is no reason to lose a picture."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from PIL import ExifTags, Image

logger = logging.getLogger(__name__)

DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
)
"""What Pillow raises for EXIF it cannot read."""
TEXT_CHARACTERS: Final = 200
"""Kept of a text. Cameras write some twenty; a file may hold as many as it likes."""


@dataclass(frozen=True, slots=True)
class Description:
    """When, with what and where; `latitude` and `longitude` are in degrees.

    `taken_at` takes EXIF's local time for UTC where the file states no offset.
    """

    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def described(exif: Image.Exif) -> Description:
    """What these tags say, as far as they can be read."""
    try:
        latitude, longitude = _position(exif)
        return Description(_taken_at(exif), _camera(exif), latitude, longitude)
    except DAMAGED as error:
        logger.info("EXIF ignored: %s", error)
        return Description()


def _taken_at(exif: Image.Exif) -> datetime | None:
    details = exif.get_ifd(ExifTags.IFD.Exif)
    text = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    stamp = _text(text).strip()
    if not stamp:
        return None
    offset = _text(details.get(ExifTags.Base.OffsetTimeOriginal)).strip()
    if offset:
        try:
            return datetime.strptime(f"{stamp}{offset}", "%Y:%m:%d %H:%M:%S%z")
        except ValueError:
            pass  # An offset no clock has: the time itself is still worth having.
    try:
        return datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _camera(exif: Image.Exif) -> str | None:
    make, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
    # Most makers repeat their name in the model's.
    both = (model if model.startswith(make) else f"{make} {model}").strip()
    return both[:TEXT_CHARACTERS].strip() or None


def _text(value: object) -> str:
    """The value, if it is a text: no more of it than anybody wants to read."""
    if not isinstance(value, str):
        return ""
    return value.strip("\0 ")[:TEXT_CHARACTERS].encode("utf-8", "replace").decode()


def _position(exif: Image.Exif) -> tuple[float, float] | tuple[None, None]:
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef))
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None, None
    if latitude == longitude == 0:
        # What cameras write that do not know where they are.
        return None, None
    return latitude, longitude


def _degrees(parts: object, reference: object) -> float | None:
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not np.isfinite(value):
        return None
    return -value if reference in ("S", "W") else value
