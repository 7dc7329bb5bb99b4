"""TIFFs whose numbers Pillow takes for others, and what is done about them."""

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


def know_more() -> None:
    """Have Pillow read 12 bits of grey, which lie the same way in either byte order."""
    for colours in _GREYS:
        for order in (b"II", b"MM"):
            key = (order, colours, (_UNSIGNED,), 1, (12,), ())
            TiffImagePlugin.OPEN_INFO.setdefault(key, _12_BITS)


def is_misread(image: Image.Image) -> bool:
    """Whether libvips is to read this TIFF, as Pillow gives other colours than it has."""
    (colours,), bits = _told(image, _COLOURS, (-1,)), max(_told(image, _BITS, (1,)))
    if colours == _YCBCR:
        subsampled = _told(image, _SUBSAMPLING, (2, 2)) != (1, 1)
        return subsampled and _told(image, _COMPRESSION, (1,))[0] not in _JPEGS
    if colours == _PALETTE:  # its colours have 16 bits, but for some old programs
        return max(_told(image, _COLOUR_MAP, (256,))) < 256
    if _told(image, _LAYOUT, (1,))[0] == _IN_PLANES and _told(image, _SAMPLES, (1,))[0] > 1:
        return bits == 16
    if colours == _WHITE_IS_ZERO and bits == 16:
        return True
    unsigned = _told(image, _SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    return colours in _GREYS and bits == 32 and unsigned


def as_meant(image: Image.Image) -> None:
    """Give a loaded TIFF's 12 bits of grey the range of 16, and white where it is.

    A fourth sample of RGB that nothing explains and that is 0 throughout only fills up.
    """
    if image.format != "TIFF":
        return
    if image.mode == "RGBA" and not _told(image, _EXTRA_SAMPLES, ()):
        if image.getchannel("A").getextrema() == (0, 0):
            image.putalpha(255)
        return
    if image.mode != "I;16" or max(_told(image, _BITS, (1,))) != 12:
        return
    values = np.asarray(image)
    values = values << 4 | values >> 8
    if _told(image, _COLOURS, (-1,))[0] == _WHITE_IS_ZERO:
        values = 65535 - values
    image.im = Image.fromarray(values.astype(np.uint16)).im


def _told(image: Image.Image, tag: int, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of a TIFF's tag; `otherwise` of another file, or where they are none."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    found = tags.get(tag, otherwise)
    listed = found if isinstance(found, tuple) else (found,)
    return listed if listed and all(isinstance(each, int) for each in listed) else otherwise
