"""Recovers parts of damaged images, as browsers and viewers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

PARTIAL_FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF")
"""Pillow formats that browsers, viewers and Pillow itself can decode in part."""
_MISSING_IN_JPEG: Final = 128
_BLOCK_OF_JPEG: Final = 16 * 16
_BLOCKS: Final = (2, 4, 8)
"""Block sizes of GIF's and PNG's interlacing, whose first pass is every eighth row."""


@contextmanager
def tolerate_truncation() -> Iterator[None]:
    """Within the block, Pillow's decoders return the part that they have when the data ends."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def fill_blank(image: Image.Image, *, white: bool = True) -> None:
    """Fill the image in advance, transparent or white (or black), for parts that stay undecoded."""
    image.im = Image.new(image.mode, image.size, (_white if white else _black)(image)).im


def is_flat(image: Image.Image) -> bool:
    """Whether an RGB image is completely black or completely white."""
    pixels = np.asarray(image)
    return bool((pixels == 0).all() or (pixels == 255).all())


def is_unread_jpeg(image: Image.Image) -> bool:
    """Whether everything has the grey of undecoded JPEG data, except for at most one block."""
    grey = (np.asarray(image) == _MISSING_IN_JPEG).all(axis=2)
    return bool(grey.any() and np.count_nonzero(~grey) <= _BLOCK_OF_JPEG)


def fill_missing(image: Image.Image, missing: npt.NDArray[np.bool_]) -> Image.Image:
    """An interlaced image whose missing pixels are filled from the coarser pass."""
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
    """Which pixels of an RGB image are white."""
    return np.asarray(np.asarray(image).min(axis=2) == 255)


def _black(image: Image.Image) -> int | tuple[int, ...]:
    # In CMYK 0 is no ink; with alpha 0 is transparent.
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
