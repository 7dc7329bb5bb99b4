"""Shrinks large images with libvips while reading them, so they are never entirely in memory."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import pyvips
from PIL import ExifTags, Image, ImageColor

from adapters.errors import Rejected
from imaging.colours import flatten
from imaging.limits import check_pixels
from imaging.salvage import fill_missing

logger = logging.getLogger(__name__)

FORMATS: Final = ("PNG", "TIFF", "WEBP")
"""Pillow formats that libvips reads line by line, or scaled."""
SALVAGED: Final = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
}
"""Formats that libvips can read in part, or where Pillow cannot: media type -> Pillow format."""
BIG_PIXELS: Final = 16_000_000
BYTES_NEEDED: Final = {"PNG": 3, "TIFF": 5, "WEBP": 1}
"""Approximate memory of shrinking, in bytes per pixel, without the file."""
PLAIN_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
"""Pillow modes that libvips handles here."""

_TO_8_BITS: Final = {"ushort": 257, "uint": 257 * 65537}
_PLAIN: Final = ("srgb", "b-w", "rgb16", "grey16")

# Each image is read once, so a cache is useless.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.WARNING)


def is_shrinkable(kind: str | None, pixels: int) -> bool:
    """Whether an image of this Pillow format and this number of pixels is shrunk while read."""
    return kind in FORMATS and pixels >= BIG_PIXELS


def shrink_on_load(
    data: bytes, kind: str, edge: int, background: str, *, whole: bool = True
) -> Image.Image | None:
    """The image as RGB, averaged down to at least `edge` in both directions; EXIF is in `info`.

    Transparency is composited on `background` first, so invisible colours have no effect. None for
    colour modes that Pillow handles better (CMYK, floats). If not `whole`, damage is tolerated.

    Raises:
        Rejected: damaged.
    """
    try:
        image = _open_image(data, kind, edge, whole=whole)
        return _reduce(image, edge, background) if image.interpretation in _PLAIN else None
    except pyvips.Error as error:
        raise _damaged_error(error) from error


def salvage(
    data: bytes, kind: str, edge: int, background: str, max_pixels: int
) -> tuple[Image.Image, int, int]:
    """The readable part of an image that Pillow cannot read, and its full width and height.

    The part is shrunk as by `shrink_on_load`.

    Raises:
        Rejected: nothing can be decoded.
        TooManyPixels: more than `max_pixels`.
    """
    try:
        image = _open_image(data, kind, edge, whole=False)
        width, height = image.width, image.height
        check_pixels(width, height, max_pixels)
        if image.interpretation not in _PLAIN:
            image = image.colourspace("srgb")
        if kind == "GIF" and image.hasalpha() and "interlaced" in image.get_fields():
            pixels = image.numpy()
            filled = fill_missing(Image.fromarray(pixels), pixels[:, :, -1] == 0)
            image = pyvips.Image.new_from_array(np.asarray(filled), interpretation="srgb")
        return _reduce(image, edge, background), width, height
    except pyvips.Error as error:
        raise _damaged_error(error) from error


def _damaged_error(error: pyvips.Error) -> Rejected:
    return Rejected(f"damaged picture: {' '.join(str(error).split())}")


def _reduce(image: pyvips.Image, edge: int, background: str) -> Image.Image:
    if image.format in _TO_8_BITS:
        plain = "b-w" if image.bands < 3 else "srgb"
        # With the 16-bit interpretation, opaque pixels would count as almost transparent.
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


def _open_image(data: bytes, kind: str, edge: int, *, whole: bool) -> pyvips.Image:
    options: dict[str, object] = {"access": "sequential", "fail_on": "error" if whole else "none"}
    image = pyvips.Image.new_from_buffer(data, "", **options)
    if kind == "WEBP" and (factor := min(image.width, image.height) // edge) > 1:
        # Its decoder scales while decoding, and cannot read line by line.
        return pyvips.Image.new_from_buffer(data, "", scale=1 / factor, **options)
    return image
