"""Whether a picture can be decoded, and small versions of it."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from imaging.colours import to_srgb
from imaging.decode import DEFAULT_MAX_PIXELS, DRAFT_FACTOR
from imaging.upright import open_upright

QUALITIES: Final = (82, 70, 55, 40, 25, 10)
"""Tried until one is small enough; the first is for all but noise."""
MAX_BYTES: Final = 100_000
"""Of one up to 512 pixels wide and high; as many a pixel of a larger one."""


def thumbnail(data: bytes, *, edge: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """An sRGB JPEG of the upright picture, at most `edge` pixels each way, never enlarged. Blocks.

    Raises:
        Rejected: not a picture in a supported format, damaged, or over `max_pixels`.
    """
    found = open_upright(data, edge=DRAFT_FACTOR * edge, background="white", max_pixels=max_pixels)
    small = found.image.copy()
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    small = to_srgb(small, found.profile)
    # A profile may be a hundred times as large as the picture, so it goes; so does all else.
    small.info.clear()
    allowed = MAX_BYTES * max(1, edge // 512) ** 2
    for quality in QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < allowed:
            break
    return buffer.getvalue()


def check(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The media type of a picture that can be decoded whole. Blocks.

    Raises:
        Rejected: empty, not a picture in a supported format, damaged, or over `max_pixels`.
    """
    # A damaged file shows at any scale; the smallest takes the least memory.
    return open_upright(data, edge=1, background="white", max_pixels=max_pixels).media_type
