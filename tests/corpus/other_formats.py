"""GIF, WebP, AVIF, HEIC, JPEG XL and BMP."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pillow_heif
from PIL import Image

from tests.corpus.builders import (
    HEIGHT,
    WIDTH,
    Case,
    card,
    clear,
    exif,
    gradient,
    grey_card,
    heif,
    jpeg_xl_of,
    oriented,
    saved,
    shown,
    turned,
)


def cases() -> Iterator[Case]:
    """All of these."""
    yield from _webp_and_avif()
    yield from _gif()
    yield from _bmp()
    yield from _heic()
    yield from _jpeg_xl()


def _webp_and_avif() -> Iterator[Case]:
    for kind, suffix in (("WEBP", "webp"), ("AVIF", "avif")):
        media_type = f"image/{suffix}"
        yield shown(f"{suffix} lossy", saved(card(), kind), media_type)
        yield shown(f"{suffix} with alpha", saved(card("RGBA"), kind), media_type)
        frames = [card().rotate(180)]
        data = saved(card(), kind, save_all=True, append_images=frames)
        yield shown(f"{suffix} animated", data, media_type)
        data = saved(clear(), kind, save_all=True, append_images=[clear(), card("RGBA")])
        yield shown(f"{suffix} animated, first frames transparent", data, media_type)
        for number in range(2, 9):
            data = saved(turned(card(), number), kind, exif=exif(number))
            case = shown(f"{suffix} EXIF orientation {number}", data, media_type)
            yield replace(case, lies=kind == "WEBP")
        yield shown(f"{suffix} with trailing bytes", saved(card(), kind) + bytes(99), media_type)
    yield shown("webp lossless", saved(card(), "WEBP", lossless=True), "image/webp")
    yield shown("avif grey", saved(card("L"), "AVIF"), "image/avif", grey_card())
    mixed = saved(card(), "AVIF").replace(b"ftypavif", b"ftypmif1", 1)
    yield shown("avif with the brand mif1", mixed, "image/avif")


def _gif() -> Iterator[Case]:
    media_type = "image/gif"
    yield shown("gif", saved(card("P"), "GIF"), media_type)
    yield shown("gif not interlaced", saved(card("P"), "GIF", interlace=0), media_type)
    yield shown("gif grey", saved(card("L"), "GIF"), media_type, grey_card())
    data = saved(card("P"), "GIF", transparency=60)
    yield shown("gif with transparency", data, media_type)
    data = saved(card("P"), "GIF", save_all=True, append_images=[gradient("P")] * 3)
    yield shown("gif animated", data, media_type)
    for count in (1, 5):
        frames = [clear()] * (count - 1) + [card("RGBA")]
        times = list(range(50, 51 + count))  # frames that are alike would be made one
        data = saved(clear(), "GIF", save_all=True, append_images=frames, duration=times)
        yield shown(f"gif animated, first frame transparent ({count})", data, media_type)
    white = Image.new("RGB", (WIDTH, HEIGHT), "white")
    yield shown("gif all transparent", saved(clear(), "GIF"), media_type, white)
    data = saved(card("P"), "GIF")
    yield shown("gif without its end", data[:-1], media_type)
    yield shown("gif with trailing bytes", data + bytes(99), media_type)
    yield shown("gif of 1987", data.replace(b"GIF89a", b"GIF87a"), media_type)
    comment = b"\x21\xfe\x05hello\x00"
    at = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    yield shown("gif with a comment", data[:at] + comment + data[at:], media_type)


def _bmp() -> Iterator[Case]:
    media_type = "image/bmp"
    upright = {"1": card("1").convert("RGB"), "L": grey_card()}
    for mode in ("1", "L", "P", "RGB"):
        yield shown(f"bmp {mode}", saved(card(mode), "BMP"), media_type, upright.get(mode))
    rows = np.asarray(card())[:, :, ::-1]
    yield shown("bmp from the top", _bmp_of(24, -HEIGHT, rows.tobytes()), media_type)
    wide = np.dstack([rows, np.full(rows.shape[:2], 0, np.uint8)])[::-1]
    yield shown("bmp 32-bit, alpha unused", _bmp_of(32, HEIGHT, wide.tobytes()), media_type)
    five = (np.asarray(card())[::-1] >> 3).astype("<u2")
    short = (five[:, :, 0] << 10) | (five[:, :, 1] << 5) | five[:, :, 2]
    yield shown("bmp 16-bit", _bmp_of(16, HEIGHT, short.tobytes()), media_type)


def _bmp_of(bits: int, height: int, rows: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows


def _heic() -> Iterator[Case]:
    media_type = "image/heic"
    yield shown("heic", heif(card(), quality=80), media_type)
    yield shown("heic lossless", heif(card(), quality=-1), media_type)
    yield shown("heic with alpha", heif(card("RGBA"), quality=80), media_type)
    yield shown("heic grey", heif(card("L"), quality=80), media_type, grey_card())
    for number in range(2, 9):
        image = turned(card(), number)
        image.info["exif"] = exif(number).tobytes()  # of which its writer makes irot and imir
        yield shown(f"heic orientation {number}", saved(image, "HEIF", quality=80), media_type)
    data = saved(card(), "HEIF", exif=exif(6), quality=80)
    yield shown("heic with an EXIF orientation, which is ignored", data, media_type)
    several = pillow_heif.from_pillow(card().rotate(180))
    several.add_from_pillow(card())
    buffer = io.BytesIO()
    several.save(buffer, primary_index=1, quality=80)
    yield shown("heic of several pictures, the second first", buffer.getvalue(), media_type)
    named = heif(card(), quality=80).replace(b"ftypheic", b"ftypmif1", 1)
    yield shown("heic with the brand mif1", named, media_type)
    yield shown("heic named .jpg", heif(card(), quality=80), media_type)
    yield shown("heic with trailing bytes", heif(card(), quality=80) + bytes(99), media_type)


def _jpeg_xl() -> Iterator[Case]:
    media_type = "image/jxl"
    yield shown("jpeg xl", saved(card(), "JXL", effort=3), media_type)
    data = saved(card("RGBA"), "JXL", lossless=True, effort=3)
    yield shown("jpeg xl lossless with alpha", data, media_type)
    yield shown("jpeg xl grey", saved(card("L"), "JXL", effort=3), media_type, grey_card())
    data = saved(card(), "JXL", use_container=True, effort=3)
    yield shown("jpeg xl in boxes", data, media_type)
    data = saved(card(), "JXL", effort=3, exif=exif(6).tobytes())
    yield shown("jpeg xl with an EXIF orientation, which is ignored", data, media_type)
    yield shown("jpeg xl made from a jpeg", jpeg_xl_of(saved(card(), "JPEG")), media_type)
    grey = jpeg_xl_of(saved(card("L"), "JPEG"))
    yield shown("jpeg xl made from a grey jpeg", grey, media_type, grey_card())
    for number in range(2, 9):
        data = jpeg_xl_of(oriented(number))
        yield shown(f"jpeg xl made from a jpeg, orientation {number}", data, media_type)
