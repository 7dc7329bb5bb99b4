"""Whether a picture can be decoded, and small versions of it."""

from __future__ import annotations

import io

from PIL import Image

from adapters.picture import DEFAULT_MAX_PIXELS, DRAFT_FACTOR, open_upright


def thumbnail(data: bytes, *, edge: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A JPEG of the upright picture, at most `edge` pixels each way, never enlarged. Blocks.

    Raises:
        Rejected: not a picture in a supported format, damaged, or over `max_pixels`.
    """
    found = open_upright(data, edge=DRAFT_FACTOR * edge, background="white", max_pixels=max_pixels)
    small = found.image.copy()
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Without its ICC profile the picture would be shown in the wrong colours.
    small.save(buffer, "JPEG", quality=82, optimize=True, icc_profile=found.profile)
    return buffer.getvalue()


def check(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The media type of a picture that can be decoded whole. Blocks.

    Raises:
        Rejected: empty, not a picture in a supported format, damaged, or over `max_pixels`.
    """
    # A damaged file shows at any scale; the smallest takes the least memory.
    return open_upright(data, edge=1, background="white", max_pixels=max_pixels).media_type
