"""What is shown of a damaged picture: browsers and viewers keep what they could decode of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

PARTLY: Final = ("JPEG", "PNG", "BMP", "TIFF")
"""Pillow's names of those that browsers and viewers show in part, and Pillow does, too."""
_MISSING_IN_JPEG: Final = 128
_BLOCK_OF_JPEG: Final = 16 * 16
_BLOCKS: Final = (2, 4, 8)
"""Of GIF's and PNG's interlacing, in which each eighth row comes first."""


@contextmanager
def tolerant() -> Iterator[None]:
    """Pillow's decoders stop where the data does, and keep what they have."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def blank(image: Image.Image, *, white: bool = True) -> None:
    """Have what will not be decoded of it be transparent or white, as the page behind it is."""
    image.im = Image.new(image.mode, image.size, (_white if white else _black)(image)).im


def is_flat(image: Image.Image) -> bool:
    """Whether all of an RGB picture is black or white, as what is missing."""
    pixels = np.asarray(image)
    return bool((pixels == 0).all() or (pixels == 255).all())


def is_unread_jpeg(image: Image.Image) -> bool:
    """Whether all has the grey of what its decoder misses, but a block that it makes of nothing."""
    grey = (np.asarray(image) == _MISSING_IN_JPEG).all(axis=2)
    return bool(grey.any() and np.count_nonzero(~grey) <= _BLOCK_OF_JPEG)


def spread(image: Image.Image, missing: npt.NDArray[np.bool_]) -> Image.Image:
    """An interlaced picture, each pixel that is missing as the one that came in its place."""
    pixels = np.asarray(image).copy()
    missing = missing.copy()
    rows, columns = np.ogrid[: missing.shape[0], : missing.shape[1]]
    for block in _BLOCKS:
        above, left = rows // block * block, columns // block * block
        known = missing & ~missing[above, left]
        pixels[known] = pixels[above, left][known]
        missing &= ~known
    return Image.fromarray(pixels)


def is_white(image: Image.Image) -> npt.NDArray[np.bool_]:
    """Where an RGB picture is."""
    return np.asarray(np.asarray(image).min(axis=2) == 255)


def _black(image: Image.Image) -> int | tuple[int, ...]:
    # 0 is no ink, and no paint.
    return {"CMYK": (0, 0, 0, 255), "RGBA": (0, 0, 0, 255), "LA": (0, 255)}.get(image.mode, 0)


def _white(image: Image.Image) -> int | float | tuple[int, ...]:
    if image.mode == "RGB":
        return (255, 255, 255)
    if image.mode in ("RGBA", "LA", "PA", "CMYK"):
        return 0
    if image.mode == "P" and image.palette is not None and image.palette.colors:
        return max(image.palette.colors.items(), key=lambda each: sum(each[0][:3]))[1]
    if image.mode == "F":
        return 1.0
    return 65535 if image.mode.startswith("I") else 255
