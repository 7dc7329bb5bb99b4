"""The result of decoding an image. Imports no decoder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from adapters.embedder.arrays import Pixels

FACTS_VERSION: Final = 2
"""To be raised whenever other facts are read from the same file. Images that were indexed with an
earlier version are then read again, by an automatic replay (`adapters.log.positions`)."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image: pixels for the model (uint8 [H, W, 3]) and facts about the file.

    `width` and `height` are those of the upright original; `latitude` and `longitude` are in
    degrees; `taken_at` is in UTC, or EXIF's local time taken as UTC if the file states no offset.
    `pixels_since` is the `FACTS_VERSION` since which such a file has these pixels: a vector of an
    earlier version was computed from other pixels.
    """

    pixels: Pixels
    width: int
    height: int
    media_type: str
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    pixels_since: int = 0


Picture = DecodedImage
"""Former name, until all users are renamed."""
