"""Makes thumbnails, and checks whether an image can be decoded."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from imaging.colours import to_srgb
from imaging.decode import DEFAULT_MAX_PIXELS, DRAFT_FACTOR
from imaging.upright import open_upright

QUALITIES: Final = (82, 70, 55, 40, 25, 10)
"""JPEG qualities, tried in order until the thumbnail is small enough."""
MAX_BYTES: Final = 100_000
"""For a thumbnail of up to 512 x 512 pixels; more in proportion for larger ones."""


def thumbnail(data: bytes, *, edge: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """An sRGB JPEG of the upright image, at most `edge` pixels each way, never enlarged. Blocks.

    Raises:
        Rejected: not an image in a supported format, damaged, or over `max_pixels`.
    """
    found = open_upright(data, edge=DRAFT_FACTOR * edge, background="white", max_pixels=max_pixels)
    small = found.image.copy()
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    small = to_srgb(small, found.profile)
    # Remove the profile, which may be a hundred times as large as the thumbnail, and all
    # other metadata.
    small.info.clear()
    allowed = MAX_BYTES * max(1, edge // 512) ** 2
    for quality in QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < allowed:
            break
    return buffer.getvalue()


def check(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The media type of an image, after decoding it completely. Blocks.

    Raises:
        Rejected: empty, not an image in a supported format, damaged, or over `max_pixels`.
    """
    # Damage shows at any scale; the smallest takes the least memory.
    return open_upright(data, edge=1, background="white", max_pixels=max_pixels).media_type
