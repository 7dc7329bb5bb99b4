"""Pictures in files: whether they can be decoded, and small versions of them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from adapters.errors import Rejected
from adapters.picture import (
    DEFAULT_MAX_PIXELS,
    DRAFT_FACTOR,
    FORMATS,
    UNREADABLE,
    check_pixels,
    flatten,
    turn_upright,
)


def thumbnail(file: Path, *, edge: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A JPEG of the upright picture, at most `edge` pixels each way, never enlarged. Blocks.

    Raises:
        Rejected: not a picture in a supported format, damaged, or over `max_pixels`.
        FileNotFoundError: it is gone.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_pixels(image, max_pixels)
            image.draft(None, (DRAFT_FACTOR * edge, DRAFT_FACTOR * edge))
            image.load()
            turn_upright(image)
            # Without its ICC profile's numbers a picture would be read as the wrong colours, but
            # a browser applies the profile: it is kept.
            profile = image.info.get("icc_profile") if image.mode == "RGB" else None
            small = flatten(image, "white")
            small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=82, optimize=True, icc_profile=profile)
            return buffer.getvalue()
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error


def check(file: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The media type of a picture that can be decoded whole. Blocks.

    Raises:
        Rejected: empty, not a picture in a supported format, damaged, or over `max_pixels`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_pixels(image, max_pixels)
            media_type = Image.MIME.get(image.format or "", "application/octet-stream")
            # A damaged file shows at any scale; the smallest takes the least memory.
            image.draft(None, (1, 1))
            image.load()
            return media_type
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error
