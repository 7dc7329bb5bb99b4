"""Files as cameras write them, and what looks like them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.corpus.builders import Case, Facts, card, saved, shown, turned


def dng(orientation: int = 1) -> bytes:
    """A Digital Negative (Adobe's DNG 1.4) with a plain Bayer mosaic of the card."""
    pixels = np.asarray(turned(card(), orientation), np.uint16) * 250
    height, width = pixels.shape[:2]
    mosaic = pixels[:, :, 1].copy()
    mosaic[0::2, 0::2] = pixels[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = pixels[1::2, 1::2, 2]
    body = mosaic.astype("<u2").tobytes()
    matrix = [(10, 10), (0, 10), (0, 10), (0, 10), (10, 10), (0, 10), (0, 10), (0, 10), (10, 10)]
    entries: list[tuple[int, int, int, bytes]] = [
        (254, 4, 1, struct.pack("<I", 0)),
        (256, 4, 1, struct.pack("<I", width)),
        (257, 4, 1, struct.pack("<I", height)),
        (258, 3, 1, struct.pack("<H", 16)),
        (259, 3, 1, struct.pack("<H", 1)),
        (262, 3, 1, struct.pack("<H", 32803)),
        (271, 2, 6, b"Maker\0"),
        (272, 2, 6, b"Model\0"),
        (273, 4, 1, b"strip"),
        (274, 3, 1, struct.pack("<H", orientation)),
        (277, 3, 1, struct.pack("<H", 1)),
        (278, 4, 1, struct.pack("<I", height)),
        (279, 4, 1, struct.pack("<I", len(body))),
        (33421, 3, 2, struct.pack("<HH", 2, 2)),
        (33422, 1, 4, bytes([0, 1, 1, 2])),
        (50706, 1, 4, bytes([1, 4, 0, 0])),
        (50708, 2, 6, b"Model\0"),
        (50717, 4, 1, struct.pack("<I", 65535)),
        (50721, 10, 9, b"".join(struct.pack("<ii", *each) for each in matrix)),
        (50728, 5, 3, struct.pack("<IIIIII", 1, 1, 1, 1, 1, 1)),
        (50778, 3, 1, struct.pack("<H", 21)),
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    longer = b""
    directory = struct.pack("<H", len(entries))
    strip = after + sum(len(data) + len(data) % 2 for *_, data in entries if len(data) > 4)
    strip -= 6  # of the word that stands for the strip's own place
    for tag, kind, count, data in entries:
        if data == b"strip":
            value = struct.pack("<I", strip)
        elif len(data) > 4:
            value = struct.pack("<I", after + len(longer))
            longer += data + b"\0" * (len(data) % 2)
        else:
            value = data.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, count) + value
    assert after + len(longer) == strip
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + longer + body


class _Tiff:
    """Builds a TIFF 6.0 from parts."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.parts = b""

    def put(self, data: bytes) -> int:
        """Append data; returns its offset."""
        offset = 8 + len(self.parts)
        self.parts += data + b"\0" * (len(data) % 2)
        return offset

    def directory(self, entries: dict[int, tuple[int, int, int]]) -> int:
        """Append a directory of tag -> (type, count, value or offset)."""
        packed = struct.pack(f"{self.order}H", len(entries))
        for tag, (kind, count, value) in sorted(entries.items()):
            is_short = (kind, count) == (3, 1)
            packed += struct.pack(f"{self.order}HHI", tag, kind, count)
            packed += struct.pack(f"{self.order}{'Hxx' if is_short else 'I'}", value)
        return self.put(packed + bytes(4))

    def of_pixels(self, image: Image.Image, kind: int) -> dict[int, tuple[int, int, int]]:
        """Entries of a picture in RGB; `kind` is 1 of a preview."""
        bits = self.put(struct.pack(f"{self.order}HHH", 8, 8, 8))
        pixels = image.tobytes()
        return {
            254: (4, 1, kind),
            256: (4, 1, image.width),
            257: (4, 1, image.height),
            258: (3, 3, bits),
            259: (3, 1, 1),
            262: (3, 1, 2),
            273: (4, 1, self.put(pixels)),
            277: (3, 1, 3),
            278: (4, 1, image.height),
            279: (4, 1, len(pixels)),
        }


def camera_tiff(maker: bytes, *, order: str = "<") -> bytes:
    """An ordinary TIFF in RGB, with a maker's name and a directory below its own (tag 330)."""
    tiff = _Tiff(order)
    below = tiff.directory(tiff.of_pixels(card().resize((12, 8)), 1))
    name = maker + b"\0"
    entries = tiff.of_pixels(card(), 0)
    entries[271] = (2, len(name), tiff.put(name))
    entries[330] = (4, 1, below)
    first = tiff.directory(entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", first) + tiff.parts


def cases() -> Iterator[Case]:
    """All of these."""
    raw, made = "image/x-raw", Facts(camera="Maker Model")
    nikon = Facts(camera="NIKON CORPORATION")
    yield shown("camera raw (dng)", dng(), raw, distance=60, facts=made)
    yield shown("camera raw (dng) rotated", dng(6), raw, distance=60, facts=made)
    for number in (3, 8):
        yield shown(
            f"camera raw (dng) orientation {number}", dng(number), raw, distance=60, facts=made
        )
    for maker in (b"NIKON CORPORATION", b"SONY", b"PENTAX", b"SAMSUNG", b"LEICA"):
        name = f"tiff in RGB of a {maker.decode().title()} with a sub-directory"
        yield shown(name, camera_tiff(maker), "image/tiff", facts=Facts(camera=maker.decode()))
    data = camera_tiff(b"NIKON CORPORATION", order=">")
    yield shown(
        "tiff in RGB of a Nikon with a sub-directory, big-endian", data, "image/tiff", facts=nikon
    )
    data = saved(card(), "TIFF", tiffinfo={271: "NIKON CORPORATION"})
    yield shown("tiff in RGB of a Nikon", data, "image/tiff", facts=nikon)
