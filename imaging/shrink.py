"""Big pictures made smaller while they are read, so that they are never in memory as a whole."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import pyvips
from PIL import ExifTags, Image, ImageColor

from adapters.errors import Rejected
from imaging.colours import flatten
from imaging.limits import check_pixels
from imaging.salvage import spread

logger = logging.getLogger(__name__)

FORMATS: Final = ("PNG", "TIFF", "WEBP")
"""Pillow's names of those that libvips reads line by line, or scaled."""
SALVAGED: Final = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
}
"""What libvips reads as far as it goes, or though Pillow cannot: media type -> Pillow's name."""
BIG_PIXELS: Final = 16_000_000
BYTES_NEEDED: Final = {"PNG": 3, "TIFF": 5, "WEBP": 1}
"""About what shrinking takes a pixel, besides the file."""
PLAIN_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
"""Pillow's names of the colours that are not left to Pillow."""

_TO_8_BITS: Final = {"ushort": 257, "uint": 257 * 65537}
_PLAIN: Final = ("srgb", "b-w", "rgb16", "grey16")

# Each picture is read once, and the indexer decodes several at a time already.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.WARNING)


def is_for_us(kind: str | None, pixels: int) -> bool:
    """Whether a picture of this format and so many pixels is to be shrunk while it is read."""
    return kind in FORMATS and pixels >= BIG_PIXELS


def shrunk(
    data: bytes, kind: str, edge: int, background: str, *, whole: bool = True
) -> Image.Image | None:
    """The picture as RGB, averaged down to no less than `edge` each way; its turn is in `info`.

    Transparency is laid on `background` first, so that what is invisible colours nothing. None for
    colours that are better left to Pillow (CMYK, floats). Not `whole`, it is what there is of it.

    Raises:
        Rejected: damaged.
    """
    try:
        image = _opened(data, kind, edge, whole=whole)
        return _reduced(image, edge, background) if image.interpretation in _PLAIN else None
    except pyvips.Error as error:
        raise _damaged(error) from error


def salvaged(
    data: bytes, kind: str, edge: int, background: str, max_pixels: int
) -> tuple[Image.Image, int, int]:
    """What there is of a picture that Pillow cannot read, as `shrunk`, and its width and height.

    Raises:
        Rejected: nothing can be decoded.
        TooManyPixels: more than `max_pixels`.
    """
    try:
        image = _opened(data, kind, edge, whole=False)
        width, height = image.width, image.height
        check_pixels(width, height, max_pixels)
        if image.interpretation not in _PLAIN:
            image = image.colourspace("srgb")
        if kind == "GIF" and image.hasalpha() and "interlaced" in image.get_fields():
            pixels = image.numpy()
            filled = spread(Image.fromarray(pixels), pixels[:, :, -1] == 0)
            image = pyvips.Image.new_from_array(np.asarray(filled), interpretation="srgb")
        return _reduced(image, edge, background), width, height
    except pyvips.Error as error:
        raise _damaged(error) from error


def _damaged(error: pyvips.Error) -> Rejected:
    return Rejected(f"damaged picture: {' '.join(str(error).split())}")


def _reduced(image: pyvips.Image, edge: int, background: str) -> Image.Image:
    if image.format in _TO_8_BITS:
        plain = "b-w" if image.bands < 3 else "srgb"
        # By the old name, what is opaque now would be taken for almost transparent.
        image = (image / _TO_8_BITS[image.format]).rint().cast("uchar").copy(interpretation=plain)
    if image.hasalpha():
        image = image.flatten(background=list(ImageColor.getrgb(background))[: image.bands - 1])
    factor = max(1, min(image.width, image.height) // edge)
    pixels = image.shrink(factor, factor).numpy()
    exif, xmp = _exif(image), _xmp(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    small = flatten(Image.fromarray(pixels), background)
    if exif:
        small.info["exif"] = exif
    if xmp:
        small.info["xmp"] = xmp
    return small


def _exif(image: pyvips.Image) -> bytes:
    fields = image.get_fields()
    if "exif-data" in fields:
        return bytes(image.get("exif-data"))
    if "orientation" in fields:  # a tag of the TIFF itself
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = image.get("orientation")
        return exif.tobytes()
    return b""


def _xmp(image: pyvips.Image) -> bytes:
    return bytes(image.get("xmp-data")) if "xmp-data" in image.get_fields() else b""


def _opened(data: bytes, kind: str, edge: int, *, whole: bool) -> pyvips.Image:
    options: dict[str, object] = {"access": "sequential", "fail_on": "error" if whole else "none"}
    image = pyvips.Image.new_from_buffer(data, "", **options)
    if kind == "WEBP" and (factor := min(image.width, image.height) // edge) > 1:
        # Its decoder scales by itself, and has no lines to give otherwise.
        return pyvips.Image.new_from_buffer(data, "", scale=1 / factor, **options)
    return image
