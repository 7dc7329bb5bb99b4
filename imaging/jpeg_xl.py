"""Reads size and orientation of a JPEG XL file without decoding it.

Pillow's plugin decodes the whole file when it opens it, so a small file that claims to be a huge
image has to be recognized before that. Source: ISO/IEC 18181-1, the codestream's SizeHeader,
and 18181-2 for the boxes around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_CODESTREAM: Final = b"\xff\x0a"
_CONTAINER: Final = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def is_jpeg_xl(data: bytes) -> bool:
    """Whether the first bytes are those of a JPEG XL file."""
    return data.startswith((_CODESTREAM, _CONTAINER))


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, before any rotation.

    Raises:
        ValueError: there is no codestream in these bytes.
    """
    return _dimensions(_header(data))


def orientation(data: bytes) -> int:
    """The codestream's orientation, numbered as in EXIF; the decoder applies it.

    EXIF's own orientation is informative only (ISO/IEC 18181-1, ImageMetadata).

    Raises:
        ValueError: there is no codestream in these bytes.
    """
    bits = _header(data)
    _dimensions(bits)
    is_default = bool(bits.take(1))
    has_more = not is_default and bool(bits.take(1))
    return bits.take(3) + 1 if has_more else 1


def _header(data: bytes) -> _Bits:
    start = data[:4096] if data.startswith(_CODESTREAM) else _first_of_codestream(data)
    if not start.startswith(_CODESTREAM):
        raise ValueError("no JPEG XL codestream")
    return _Bits(start[2:18])


def _dimensions(bits: _Bits) -> tuple[int, int]:
    small = bool(bits.take(1))
    height = _small_size(bits) if small else _size(bits)
    if ratio := bits.take(3):
        numerator, denominator = _RATIOS[ratio - 1]
        return height * numerator // denominator, height
    return (_small_size(bits) if small else _size(bits)), height


def xmp_of(data: bytes) -> bytes | None:
    """The XMP packet of the container, which Pillow's plugin ignores."""
    if not data.startswith(_CONTAINER):
        return None
    return next((data[start:end] for kind, start, end in _boxes(data) if kind == b"xml "), None)


def _first_of_codestream(data: bytes) -> bytes:
    for kind, start, _ in _boxes(data):
        if kind == b"jxlc":
            return data[start : start + 64]
        if kind == b"jxlp":  # a part, after its number in four bytes
            return data[start + 4 : start + 68]
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, content start and content end of each box."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        head = 8
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
            head = 16
        yield kind, at + head, at + length if length >= head else len(data)
        if length < head:  # 0: to the end of the file
            return
        at += length


class _Bits:
    """Reads bits, least significant first, as in the codestream."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken


def _small_size(bits: _Bits) -> int:
    return (bits.take(5) + 1) * 8


def _size(bits: _Bits) -> int:
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1
