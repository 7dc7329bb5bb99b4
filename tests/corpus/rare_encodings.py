"""Encodings that no library writes, built byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.corpus.builders import (
    HEIGHT,
    WIDTH,
    Case,
    Facts,
    card,
    exif,
    grey_card,
    jpeg_segment,
    png_chunk,
    saved,
    shown,
    turned,
)
from tests.support.metadata_builders import MAKE, MODEL, text, xmp
from tests.support.metadata_builders import exif as tags_of

_TYPES: Final = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "AVIF": "avif"}
_COLOURS: Final = np.asarray(card())
_GREYS: Final = np.asarray(card("L"))


def cases() -> Iterator[Case]:
    """All of these."""
    yield from _turned_or_not()
    yield from _png()
    yield from _gif()
    yield from _bmp()
    yield from _tiff()


def _turned_or_not() -> Iterator[Case]:
    packet = xmp(tiff_Orientation="6")
    for kind, suffix in _TYPES.items():
        options: dict[str, Any] = {"tiffinfo": {700: packet}} if kind == "TIFF" else {"xmp": packet}
        data = saved(card(), kind, **options)
        if kind == "PNG":
            data = _png_of(2, 8, _COLOURS, _international("XML:com.adobe.xmp", packet))
        yield shown(f"{suffix} with an orientation in XMP alone", data, f"image/{suffix}")
    # What is written as turned is turned by its writer.
    data = saved(card(), "HEIF", xmp=xmp(tiff_Orientation="1"), quality=80)
    data = data.replace(b'tiff:Orientation="1"', b'tiff:Orientation="6"')
    yield shown("heic with an orientation in XMP alone", data, "image/heic")
    data = saved(turned(card(), 6), "JPEG", quality=90)
    filled = jpeg_segment(0xE1, b"Exif\0\xff" + exif(6).tobytes().removeprefix(b"Exif\0\0"))
    yield shown("jpeg with EXIF marked in another way", data[:2] + filled + data[2:], "image/jpeg")
    about = b"Exif\0\0" + tags_of([text(MAKE, b"Caf\xe9"), text(MODEL, b"Fl\xfb")])
    data = saved(card(), "JPEG", exif=about)
    yield shown(
        "jpeg whose camera is in Latin-1", data, "image/jpeg", facts=Facts(camera="Café Flû")
    )


def _international(name: str, content: bytes) -> bytes:
    return png_chunk(b"iTXt", name.encode() + b"\0\0\0\0\0" + content)


def _png_of(colours: int, bits: int, rows: np.ndarray[Any, Any], *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colours, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [png_chunk(b"IHDR", head), *chunks, png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _packed(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """The values packed as numbers of this many bits, the highest bit first."""
    each = (values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(values.shape[0], -1).astype(np.uint8), axis=1)


def _png() -> Iterator[Case]:
    for bits in (2, 4, 8, 16):
        levels = _GREYS.astype(np.uint16) * 257 >> (16 - bits)
        clear = int(levels[0, 0])
        rows = levels.astype(">u2") if bits == 16 else _packed(levels, bits)
        upright = np.where(levels == clear, 255, levels / (2**bits - 1) * 255).astype(np.uint8)
        chunk = png_chunk(b"tRNS", struct.pack(">H", clear))
        yield shown(
            f"png {bits}-bit grey with a transparent grey",
            _png_of(0, bits, rows, chunk),
            "image/png",
            Image.fromarray(upright).convert("RGB"),
        )
    red = Image.new("RGB", (WIDTH, HEIGHT), "red")
    frames = [card(), card().rotate(180)]
    for count in (1, 2):
        data = saved(red, "PNG", save_all=True, append_images=frames[:count], default_image=True)
        yield shown(f"png animated, default image that is no frame ({count})", data, "image/png")
    empty = _png_of(6, 8, np.zeros((0, WIDTH, 4), np.uint8))
    yield Case("png with alpha without its pixels", empty, "damaged picture")


def _gif() -> Iterator[Case]:
    plain = saved(card("P"), "GIF", interlace=0)
    colours = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    at = plain.index(b",", colours)
    data = plain[:6] + struct.pack("<HH", WIDTH * 2, HEIGHT * 2) + plain[10 : at + 1]
    data += struct.pack("<HH", WIDTH, HEIGHT) + plain[at + 5 :]
    upright = Image.new("RGB", (WIDTH * 2, HEIGHT * 2), "white")
    upright.paste(card(), (WIDTH, HEIGHT))
    yield shown("gif whose frame fills a quarter of it", data, "image/gif", upright)


def _bmp() -> Iterator[Case]:
    lines = _COLOURS[::-1].astype(np.uint32)
    red, green, blue = lines[:, :, 0], lines[:, :, 1], lines[:, :, 2]
    media_type = "image/bmp"
    masked: dict[str, tuple[int, np.ndarray[Any, Any], tuple[int, ...]]] = {
        "32-bit, red first": (32, red | green << 8 | blue << 16, (0xFF, 0xFF00, 0xFF0000)),
        "32-bit, 10 bits each": (
            32,
            red << 22 | green << 12 | blue << 2,
            (0x3FF << 20, 0x3FF << 10, 0x3FF),
        ),
        "16-bit, 4 bits each": (
            16,
            red >> 4 << 8 | green >> 4 << 4 | blue >> 4,
            (0xF00, 0xF0, 0xF),
        ),
    }
    for name, (bits, values, masks) in masked.items():
        body = values.astype(f"<u{bits // 8}").tobytes()
        data = _bmp_of(bits, body, struct.pack("<3I", *masks), packing=3)
        yield shown(f"bmp {name}", data, media_type)
        yield shown(
            f"bmp {name}, without its last rows", data[: -9 * WIDTH * bits // 8], media_type,
            _below_white(9),
        )  # fmt: skip
    # What lies beyond a pixel's 16 bits.
    values = lines[:, :, 0] >> 4 << 8 | lines[:, :, 1] >> 4 << 4 | lines[:, :, 2] >> 4
    header = struct.pack("<3I", 0xFFFF0F00, 0xF0, 0xF)
    data = _bmp_of(16, values.astype("<u2").tobytes(), header, packing=3)
    yield shown("bmp 16-bit with a mask of 32 bits", data, media_type)
    numbers = np.repeat(np.repeat([[2, 3], [0, 1]], HEIGHT // 2, 0), WIDTH // 2, 1)
    corners = b"".join(bytes([*_COLOURS[y, x][::-1], 0]) for y in (0, -1) for x in (0, -1))
    data = _bmp_of(2, _packed(numbers, 2).tobytes(), corners)
    yield shown("bmp 2-bit", data, media_type)
    body = lines[:, :, ::-1].astype(np.uint8).tobytes()
    head = struct.pack("<IiiHH", 16, WIDTH, HEIGHT, 1, 24)
    data = b"BM" + struct.pack("<IHHI", 30 + len(body), 0, 0, 30) + head + body
    yield shown("bmp of OS/2 with a short header", data, media_type)
    data = _bmp_of(32, b"", struct.pack("<3I", 0xFF, 0xFF00, 0xFF0000), packing=3)
    yield Case("bmp 32-bit, red first, without its pixels", data, "damaged picture")


def _below_white(rows: int) -> Image.Image:
    upright = card()
    upright.paste("white", (0, 0, WIDTH, rows))  # which come last in the file
    return upright


def _bmp_of(bits: int, body: bytes, header: bytes, packing: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIii8x", 40, WIDTH, HEIGHT, 1, bits, packing, len(body), 0, 0)
    start = 54 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + header + body


def tiff_of(order: str, strips: Sequence[bytes], tags: Mapping[int, tuple[int, ...]]) -> bytes:
    """A TIFF without packing; `tags` beside or instead of those of an 8-bit RGB picture."""
    end = "<" if order == "II" else ">"
    offsets = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    every = {
        256: (WIDTH,), 257: (HEIGHT,), 258: (8, 8, 8), 259: (1,), 262: (2,), 277: (3,),
        278: (HEIGHT,), 273: offsets, 279: [len(strip) for strip in strips], **tags,
    }  # fmt: skip
    at = 8 + sum(map(len, strips))
    directory, longer = struct.pack(f"{end}H", len(every)), b""
    after = at + 2 + 12 * len(every) + 4
    for tag, values in sorted(every.items()):
        kind, code = (4, "I") if tag in (273, 279) else (3, "H")
        value = struct.pack(f"{end}{len(values)}{code}", *values).ljust(4, b"\0")
        if len(value) > 4:
            longer += value
            value = struct.pack(f"{end}I", after + len(longer) - len(value))
        directory += struct.pack(f"{end}HHI", tag, kind, len(values)) + value
    head = order.encode() + struct.pack(f"{end}HI", 42, at)
    return head + b"".join(strips) + directory + bytes(4) + longer


def _tiff() -> Iterator[Case]:
    for order, end in (("II", "<"), ("MM", ">")):
        named = "" if order == "II" else ", big-endian"

        def grey(
            name: str, rows: bytes, end: str = end, order: str = order, named: str = named,
            **tags: tuple[int, ...],
        ) -> Case:  # fmt: skip
            numbers = {int(tag[1:]): values for tag, values in tags.items()}
            data = tiff_of(order, [rows], {262: (1,), 277: (1,), **numbers})
            return shown(f"tiff {name}{named}", data, "image/tiff", grey_card())

        deep = _COLOURS.astype(f"{end}u2") * 257
        planes = [deep[:, :, band].astype(f"{end}u2").tobytes() for band in range(3)]
        data = tiff_of(order, planes, {258: (16, 16, 16), 284: (2,)})
        yield shown(f"tiff 16-bit RGB in planes{named}", data, "image/tiff")
        inverse = ((255 - _GREYS).astype(np.uint16) * 257).astype(f"{end}u2").tobytes()
        yield grey("16-bit grey, 0 is white", inverse, t258=(16,), t262=(0,))
        twelve = _packed(_GREYS.astype(np.uint32) * 4095 // 255, 12).tobytes()
        yield grey("12-bit grey", twelve, t258=(12,))
        twelve = _packed((255 - _GREYS).astype(np.uint32) * 4095 // 255, 12).tobytes()
        yield grey("12-bit grey, 0 is white", twelve, t258=(12,), t262=(0,))
        wide = (_GREYS.astype(np.uint32) * 16843009).astype(f"{end}u4").tobytes()
        yield grey("32-bit grey", wide, t258=(32,))
        half = (_GREYS / 255).astype(f"{end}f2").tobytes()
        yield grey("16-bit float grey", half, t258=(16,), t339=(3,))
        most = (_COLOURS.astype(np.uint32) * 16843009).astype(f"{end}u4").tobytes()
        data = tiff_of(order, [most], {258: (32, 32, 32)})
        yield shown(f"tiff 32-bit RGB{named}", data, "image/tiff")
    filled = np.dstack([_COLOURS, np.zeros((HEIGHT, WIDTH, 1), np.uint8)]).tobytes()
    data = tiff_of("II", [filled], {258: (8, 8, 8, 8), 277: (4,)})
    yield shown("tiff with a fourth sample of 0", data, "image/tiff")
    shared = np.asarray(card("YCbCr"))
    blocks = b"".join(
        shared[y : y + 2, x : x + 2, 0].tobytes() + shared[y, x, 1:].tobytes()
        for y in range(0, HEIGHT, 2)
        for x in range(0, WIDTH, 2)
    )
    shares: dict[str, dict[int, tuple[int, ...]]] = {", two by two": {530: (2, 2)}, "": {}}
    for name, more in shares.items():
        data = tiff_of("II", [blocks], {262: (6,), **more})
        yield shown(f"tiff YCbCr of shared colours{name}", data, "image/tiff")
    palette = card("P")
    palette_rows = np.array(palette.getpalette(), np.uint16).reshape(-1, 3)
    colours = np.zeros((256, 3), np.uint16)
    colours[: len(palette_rows)] = palette_rows
    tags = {258: (8,), 262: (3,), 277: (1,), 320: tuple(map(int, colours.T.ravel()))}
    data = tiff_of("II", [np.asarray(palette).tobytes()], tags)
    yield shown("tiff whose palette has 8 bits", data, "image/tiff")
