"""Reads camera raw files (DNG, CR2, CR3, NEF, ARW, RAF, …) with LibRaw."""

from __future__ import annotations

import io
import struct
from typing import Final

import rawpy
from PIL import Image

from adapters.errors import Rejected
from imaging.limits import check_pixels

_DNG_VERSION: Final = 50706
_MAKE: Final = 271
_SUB_IFDS: Final = 330
_MAKERS: Final = (b"NIKON", b"SONY", b"PENTAX", b"RICOH", b"SAMSUNG", b"Hasselblad", b"LEICA")
"""Makers whose raw files begin like any TIFF; others have their own signature."""
_ASCII: Final = 2


def is_camera_raw(data: bytes) -> bool:
    """Whether this is a raw file, by its signature or by the first directory of a TIFF."""
    if data.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")):
        return True
    if data[4:12] == b"ftypcrx " or (data[8:10] == b"CR" and data.startswith(b"II*\0")):
        return True
    if not data.startswith((b"II*\0", b"MM\0*")):
        return False
    tags = _first_directory(data)
    if _DNG_VERSION in tags:
        return True
    return _SUB_IFDS in tags and tags.get(_MAKE, b"").startswith(_MAKERS)


def develop(data: bytes, max_pixels: int) -> tuple[Image.Image, int, int]:
    """The upright image at half size as RGB, and its full width and height in pixels.

    At half size the sensor's colours need no interpolation; models use far fewer pixels.

    Raises:
        Rejected: damaged, or from a camera that LibRaw does not support.
        TooManyPixels: more than `max_pixels`.
    """
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            sizes = raw.sizes
            width, height = sizes.width, sizes.height
            check_pixels(sizes.raw_width, sizes.raw_height, max_pixels)
            check_pixels(width, height, max_pixels)
            pixels = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise Rejected(f"damaged picture: {reason}") from error
    image = Image.fromarray(pixels)
    if (image.width > image.height) != (width > height) and width != height:
        width, height = height, width
    return image, width, height


def exif_of(data: bytes) -> Image.Exif:
    """The EXIF of a raw file that is a TIFF; empty for others."""
    exif = Image.Exif()
    if data.startswith((b"II*\0", b"MM\0*")):
        exif.load_from_fp(io.BytesIO(data))
    return exif


def _first_directory(data: bytes) -> dict[int, bytes]:
    """The first directory of a TIFF (TIFF 6.0): tag -> its bytes if it is text, else b""."""
    order = "<" if data.startswith(b"II") else ">"
    tags: dict[int, bytes] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for number in range(count):
            entry = at + 2 + 12 * number
            tag, kind, length, value = struct.unpack_from(f"{order}HHII", data, entry)
            tags[tag] = b""
            if kind == _ASCII:
                start = value if length > 4 else entry + 8
                tags[tag] = data[start : start + length]
    except struct.error:
        return tags
    return tags
