"""Big pictures made smaller while they are read, so that they are never in memory as a whole."""

from __future__ import annotations

import logging
from typing import Final

import pyvips
from PIL import ExifTags, Image, ImageColor

from adapters.errors import Rejected

logger = logging.getLogger(__name__)

FORMATS: Final = ("PNG", "TIFF", "WEBP")
"""Pillow's names of those that libvips reads line by line, or scaled."""
BIG_PIXELS: Final = 16_000_000
BYTES_NEEDED: Final = {"PNG": 3, "TIFF": 5, "WEBP": 1}
"""About what shrinking takes a pixel, besides the file."""
PLAIN_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B")
"""Pillow's names of the colours that are not left to Pillow."""

_PLAIN: Final = ("srgb", "b-w", "rgb16", "grey16")

# Each picture is read once, and the indexer decodes several at a time already.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.WARNING)


def is_for_us(kind: str | None, pixels: int) -> bool:
    """Whether a picture of this format and so many pixels is to be shrunk while it is read."""
    return kind in FORMATS and pixels >= BIG_PIXELS


def shrunk(data: bytes, kind: str, edge: int, background: str) -> Image.Image | None:
    """The picture as RGB, averaged down to no less than `edge` each way; its turn is in `info`.

    Transparency is laid on `background` first, so that what is invisible colours nothing. None for
    colours that are better left to Pillow (CMYK, floats).

    Raises:
        Rejected: damaged.
    """
    try:
        image = _opened(data, kind, edge)
        if image.interpretation not in _PLAIN:
            return None
        if image.format == "ushort":
            image = (image / 257).rint().cast("uchar")
        if image.hasalpha():
            image = image.flatten(background=list(ImageColor.getrgb(background))[: image.bands - 1])
        factor = max(1, min(image.width, image.height) // edge)
        pixels = image.shrink(factor, factor).numpy()
        exif, xmp = _exif(image), _xmp(image)
    except pyvips.Error as error:
        reason = " ".join(str(error).split())
        raise Rejected(f"damaged picture: {reason}") from error
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    small = Image.fromarray(pixels).convert("RGB")
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


def _opened(data: bytes, kind: str, edge: int) -> pyvips.Image:
    options: dict[str, object] = {"access": "sequential", "fail_on": "error"}
    image = pyvips.Image.new_from_buffer(data, "", **options)
    if kind == "WEBP" and (factor := min(image.width, image.height) // edge) > 1:
        # Its decoder scales by itself, and has no lines to give otherwise.
        return pyvips.Image.new_from_buffer(data, "", scale=1 / factor, **options)
    return image
