"""Reads ancillary PNG chunks leniently, as browsers do: unreadable ones are skipped.

Pillow rejects a whole image for a text chunk of more than a megabyte or a wrong checksum of a
comment. Pixels do not depend on ancillary chunks, and PNG allows decoders to skip them.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import PngImagePlugin

MAX_CHUNK: Final = 8 << 20
"""Maximum bytes unpacked from one chunk; the largest printer profiles have four megabytes."""
MAX_TEXT: Final = 16 << 20
"""Maximum bytes of all text chunks together."""
_BITS_OF_GREY: Final = {"L;2": 2, "L;4": 4}
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_UNREADABLE: Final = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


class LenientStream(PngImagePlugin.PngStream):
    """Pillow's chunk reader, which does not reject an image for its ancillary chunks."""

    _skip_texts = False

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """Read a chunk with Pillow; b"" for an ancillary chunk that cannot be read."""
        if self.fp is None or not _is_ancillary(cid):
            return super().call(cid, pos, length)
        start = self.fp.tell()
        if not (self._skip_texts and cid in _TEXTS):
            try:
                return super().call(cid, pos, length)
            except _UNREADABLE:
                # A text may unpack to a thousand times its size; after one that is too large,
                # all others are skipped.
                self._skip_texts = self._skip_texts or cid in _TEXTS
        self.fp.seek(start + length)
        return b""

    def chunk_tRNS(self, pos: int, length: int) -> bytes:  # noqa: N802 (Pillow's name)
        """As Pillow, but scales the transparent grey to 8 bits, as Pillow does with the pixels."""
        result = super().chunk_tRNS(pos, length)
        clear = self.im_info.get("transparency")
        if (bits := _BITS_OF_GREY.get(self.im_rawmode or "")) and isinstance(clear, int):
            top = (1 << bits) - 1
            self.im_info["transparency"] = (clear & top) * 255 // top
        return result

    def crc(self, cid: bytes, data: bytes) -> None:
        """Check the checksum of critical chunks only."""
        if _is_ancillary(cid):
            self.crc_skip(cid, data)
        else:
            super().crc(cid, data)


def _is_ancillary(kind: bytes) -> bool:
    return bool(kind[0] >> 5 & 1)


def be_lenient() -> None:
    """Make Pillow read PNG files leniently."""
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_CHUNK
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT
    PngImagePlugin.PngStream = LenientStream  # type: ignore[misc]
