"""Corrections for TIFF files whose samples Pillow misinterprets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from PIL import Image, TiffImagePlugin

_BITS: Final = 258
_COMPRESSION: Final = 259
_COLOURS: Final = 262
_SAMPLES: Final = 277
_LAYOUT: Final = 284
_COLOUR_MAP: Final = 320
_EXTRA_SAMPLES: Final = 338
_SAMPLE_FORMAT: Final = 339
_SUBSAMPLING: Final = 530

_WHITE_IS_ZERO, _PALETTE, _YCBCR = 0, 3, 6
_GREYS: Final = (_WHITE_IS_ZERO, 1)
_IN_PLANES: Final = 2
_JPEGS: Final = (6, 7)
_UNSIGNED: Final = 1
_12_BITS: Final = ("I;16", "I;12")


def register_12_bit_greys() -> None:
    """Make Pillow read 12-bit greys, which are packed the same way in either byte order."""
    for colours in _GREYS:
        for order in (b"II", b"MM"):
            key = (order, colours, (_UNSIGNED,), 1, (12,), ())
            TiffImagePlugin.OPEN_INFO.setdefault(key, _12_BITS)


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow would read wrong colours from this TIFF, so that libvips has to read it."""
    (colours,), bits = _tag(image, _COLOURS, (-1,)), max(_tag(image, _BITS, (1,)))
    if colours == _YCBCR:
        subsampled = _tag(image, _SUBSAMPLING, (2, 2)) != (1, 1)
        return subsampled and _tag(image, _COMPRESSION, (1,))[0] not in _JPEGS
    if colours == _PALETTE:  # colours have 16 bits, except those of some old programs
        return max(_tag(image, _COLOUR_MAP, (256,))) < 256
    if _tag(image, _LAYOUT, (1,))[0] == _IN_PLANES and _tag(image, _SAMPLES, (1,))[0] > 1:
        return bits == 16
    if colours == _WHITE_IS_ZERO and bits == 16:
        return True
    unsigned = _tag(image, _SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    return colours in _GREYS and bits == 32 and unsigned


def correct_samples(image: Image.Image) -> None:
    """Correct a loaded TIFF in place: scale 12-bit greys to 16 bits, and invert them if needed.

    A fourth sample of RGB that is undeclared and 0 everywhere is padding, not transparency.
    """
    if image.format != "TIFF":
        return
    if image.mode == "RGBA" and not _tag(image, _EXTRA_SAMPLES, ()):
        if image.getchannel("A").getextrema() == (0, 0):
            image.putalpha(255)
        return
    if image.mode != "I;16" or max(_tag(image, _BITS, (1,))) != 12:
        return
    values = np.asarray(image)
    values = values << 4 | values >> 8
    if _tag(image, _COLOURS, (-1,))[0] == _WHITE_IS_ZERO:
        values = 65535 - values
    image.im = Image.fromarray(values.astype(np.uint16)).im


def _tag(image: Image.Image, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    """The integers of a TIFF tag; `default` if it is absent, not integers, or not a TIFF."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    found = tags.get(tag, default)
    listed = found if isinstance(found, tuple) else (found,)
    return listed if listed and all(isinstance(each, int) for each in listed) else default
