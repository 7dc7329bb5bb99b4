"""PNG's side information, read as browsers do: what cannot be read of it is left out.

Pillow refuses a whole picture for a text of over a megabyte or a wrong checksum of a comment. The
pixels do not depend on any of these chunks; PNG calls them ancillary and lets a decoder skip them.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import PngImagePlugin

MAX_CHUNK: Final = 8 << 20
"""Unpacked from one chunk. The largest colour profiles of printers have some four megabytes."""
MAX_TEXT: Final = 16 << 20
"""Kept of all texts together."""
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
    """Pillow's reader of chunks, without its refusal of a picture for what is beside the pixels."""

    _had_enough = False

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """What Pillow makes of a chunk; nothing of one that is ancillary and cannot be read."""
        if self.fp is None or not _is_ancillary(cid):
            return super().call(cid, pos, length)
        start = self.fp.tell()
        if not (self._had_enough and cid in _TEXTS):
            try:
                return super().call(cid, pos, length)
            except _UNREADABLE:
                # Each text unpacks to a thousand times its size: after one too many, none is.
                self._had_enough = self._had_enough or cid in _TEXTS
        self.fp.seek(start + length)
        return b""

    def chunk_tRNS(self, pos: int, length: int) -> bytes:  # noqa: N802 (Pillow's name)
        """As Pillow, whose greys of 2 and 4 bits are of 8 bits in all but this."""
        said = super().chunk_tRNS(pos, length)
        clear = self.im_info.get("transparency")
        if (bits := _BITS_OF_GREY.get(self.im_rawmode or "")) and isinstance(clear, int):
            most = (1 << bits) - 1
            self.im_info["transparency"] = (clear & most) * 255 // most
        return said

    def crc(self, cid: bytes, data: bytes) -> None:
        """Compare the checksum of what a picture cannot do without."""
        if _is_ancillary(cid):
            self.crc_skip(cid, data)
        else:
            super().crc(cid, data)


def _is_ancillary(kind: bytes) -> bool:
    return bool(kind[0] >> 5 & 1)


def be_lenient() -> None:
    """Have Pillow read PNG this way from now on."""
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_CHUNK
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT
    PngImagePlugin.PngStream = LenientStream  # type: ignore[misc]
