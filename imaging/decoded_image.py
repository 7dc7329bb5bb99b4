"""What decoding a picture gives, for those who never touch its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from adapters.embedder.arrays import Pixels

FACTS_VERSION: Final = 2
"""Raised whenever something else is read of the same file: pictures that were indexed by an earlier
number are then read again, by a replay that begins by itself (`marked_offsets`)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: pixels for the model (uint8 [H, W, 3]) and its own properties.

    `width` and `height` are those of the upright original; `latitude` and `longitude` are in
    degrees; `taken_at` takes EXIF's local time for UTC where the file states no offset.
    `pixels_since` is the `FACTS_VERSION` since which these pixels are made of such a file: a vector
    of an earlier one is of other pixels.
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
