"""Rewrites Windows and OS/2 bitmaps that Pillow cannot read as bitmaps that it can.

Such bitmaps may define the meaning of a pixel's bits by masks, which browsers support.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from imaging.limits import check_pixels

_FILE_HEAD: Final = 14
_SHORT_HEAD: Final = 16
"""Header size of OS/2 2.x, whose longer header begins with the same fields."""
_INFO_HEAD: Final = 40
_WITH_MASKS, _WITH_FOUR_MASKS = 3, 6
_WITH_ALPHA: Final = 56
"""Smallest header that contains an alpha mask."""


def rewrite(data: bytes, max_pixels: int) -> bytes | None:
    """The same image with 32 bits a pixel or an 8-bit palette; None if no rewriting is needed.

    Raises:
        struct.error: the file is truncated.
        TooManyPixels: more than `max_pixels`.
    """
    if not data.startswith(b"BM"):
        return None
    (start,) = struct.unpack_from("<I", data, 10)
    size, width, height, planes, bits = struct.unpack_from("<IiiHH", data, _FILE_HEAD)
    if width <= 0 or height == 0:
        return None
    check_pixels(width, abs(height), max_pixels)
    if size == _SHORT_HEAD:
        head = struct.pack("<IiiHH24x", _INFO_HEAD, width, height, planes, bits)
        new_start = start + _INFO_HEAD - _SHORT_HEAD
        return data[:10] + struct.pack("<I", new_start) + head + data[_FILE_HEAD + _SHORT_HEAD :]
    if size < _INFO_HEAD:
        return None
    (packing,) = struct.unpack_from("<I", data, _FILE_HEAD + 16)
    if bits == 2 and packing == 0:
        return _from_two_bits(data, size, start, width, height)
    if bits in (16, 32) and packing in (_WITH_MASKS, _WITH_FOUR_MASKS):
        has_alpha = size >= _WITH_ALPHA or packing == _WITH_FOUR_MASKS
        masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, _FILE_HEAD + _INFO_HEAD)
        rows = _rows(data, start, width, height, bits)
        if rows is not None:
            return _from_masks(rows.view(f"<u{bits // 8}")[:, :width], masks, width, height)
    return None


def _rows(
    data: bytes, start: int, width: int, height: int, bits: int
) -> npt.NDArray[np.uint8] | None:
    """The bytes of each padded row; missing rows are white. None if there is no whole row."""
    stride = (width * bits + 31) // 32 * 4
    if len(data) < start + stride:
        return None
    body = data[start : start + stride * abs(height)].ljust(stride * abs(height), b"\xff")
    return np.frombuffer(body, np.uint8).reshape(abs(height), stride)


def _from_two_bits(data: bytes, size: int, start: int, width: int, height: int) -> bytes | None:
    rows = _rows(data, start, width, height, 2)
    if rows is None:
        return None
    indices = np.stack([rows >> shift & 3 for shift in (6, 4, 2, 0)], axis=2)
    wide = np.zeros((abs(height), (width + 3) // 4 * 4), np.uint8)
    wide[:, :width] = indices.reshape(abs(height), -1)[:, :width]
    palette = data[_FILE_HEAD + size : start][:16].ljust(16, b"\0")
    return _bitmap(width, height, 8, palette, wide.tobytes())


def _from_masks(
    values: npt.NDArray[np.unsignedinteger], masks: tuple[int, ...], width: int, height: int
) -> bytes:
    has_alpha = len(masks) == 4 and masks[3] != 0
    red, green, blue = masks[:3]
    pixels = np.full((*values.shape, 4), 255, np.uint8)
    # Row by row: floats for the whole image would take several times its memory.
    for row, result in zip(values, pixels, strict=True):
        for channel, mask in enumerate((blue, green, red, *masks[3:])):
            if channel < 3 or has_alpha:
                result[:, channel] = _levels(row, mask)
    if not has_alpha:
        return _bitmap(width, height, 32, b"", pixels.tobytes())
    masks_out = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    return _bitmap(width, height, 32, masks_out, pixels.tobytes(), size=_WITH_ALPHA)


def _levels(values: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    """The values of these bits of each pixel, scaled to 0 to 255."""
    mask &= int(np.iinfo(values.dtype).max)  # bits beyond the pixel's size are always 0
    if mask == 0:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    share = ((values & mask) >> shift).astype(np.float32) / (mask >> shift)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _bitmap(
    width: int, height: int, bits: int, table: bytes, body: bytes, size: int = _INFO_HEAD
) -> bytes:
    """A whole file. `table` is the palette, or the masks, which lie within a header of `size`."""
    packing = _WITH_MASKS if size > _INFO_HEAD else 0
    colours = len(table) // 4 if bits == 8 else 0
    head = struct.pack(
        "<IiiHHIIiiII", size, width, height, 1, bits, packing, len(body), 0, 0, colours, 0
    )
    start = _FILE_HEAD + _INFO_HEAD + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + table + body
