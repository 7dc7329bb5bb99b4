"""Odd and hostile pictures, made on the spot: name -> bytes, and what must become of each.

`docs/formats.md` lists the same cases; a test keeps the two equal.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 (makes JPEG XL known to Pillow)
from PIL import ExifTags, Image

WIDTH, HEIGHT = 48, 32
INDEXED = "indexed"


@dataclass(frozen=True)
class Case:
    """One file; `outcome` is "indexed" or a part of the reason of its dead letter."""

    name: str
    data: bytes
    outcome: str = INDEXED
    size: tuple[int, int] = (WIDTH, HEIGHT)


def picture(mode: str = "RGB") -> Image.Image:
    """A gradient with some texture, in any of Pillow's 8-bit modes."""
    across, down = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    pixels = np.stack([across, down, (across + down) % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode in ("LA", "PA"):
        return image.convert("RGBA").convert("LA").convert(mode)
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(number: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    return saved(picture(), "JPEG", exif=exif)


def heif(**options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(buffer, **options)
    return buffer.getvalue()


def from_jpeg() -> bytes:
    """A JPEG XL file that holds a JPEG, to be had back to the last byte."""
    jpeg = Image.open(io.BytesIO(saved(picture(), "JPEG", quality=90)))
    return saved(jpeg, "JXL", lossless_jpeg=True)


def dng(orientation: int = 1) -> bytes:
    """A Digital Negative (Adobe's DNG 1.4) with a plain Bayer mosaic of `picture`."""
    pixels = np.asarray(picture(), np.uint16) * 250
    mosaic = pixels[:, :, 1].copy()
    mosaic[0::2, 0::2] = pixels[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = pixels[1::2, 1::2, 2]
    body = mosaic.astype("<u2").tobytes()
    matrix = [(10, 10), (0, 10), (0, 10), (0, 10), (10, 10), (0, 10), (0, 10), (0, 10), (10, 10)]
    entries: list[tuple[int, int, int, bytes]] = [
        (254, 4, 1, struct.pack("<I", 0)),
        (256, 4, 1, struct.pack("<I", WIDTH)),
        (257, 4, 1, struct.pack("<I", HEIGHT)),
        (258, 3, 1, struct.pack("<H", 16)),
        (259, 3, 1, struct.pack("<H", 1)),
        (262, 3, 1, struct.pack("<H", 32803)),
        (271, 2, 6, b"Maker\0"),
        (272, 2, 6, b"Model\0"),
        (273, 4, 1, b"strip"),
        (274, 3, 1, struct.pack("<H", orientation)),
        (277, 3, 1, struct.pack("<H", 1)),
        (278, 4, 1, struct.pack("<I", HEIGHT)),
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


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
    )


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _jpeg()
    yield from _png()
    yield from _others()
    yield from _damaged()
    yield from _hostile()


def _jpeg() -> Iterator[Case]:
    yield Case("jpeg baseline", saved(picture(), "JPEG"))
    yield Case("jpeg progressive", saved(picture(), "JPEG", progressive=True))
    yield Case("jpeg grey", saved(picture("L"), "JPEG"))
    yield Case("jpeg CMYK", saved(picture("CMYK"), "JPEG"))
    yield Case("jpeg 4:4:4", saved(picture(), "JPEG", subsampling=0))
    yield Case("jpeg quality 1", saved(picture(), "JPEG", quality=1))
    yield Case("jpeg named .png", saved(picture(), "JPEG"))
    yield Case("jpeg with trailing bytes", saved(picture(), "JPEG") + b"\0" * 500)
    yield Case("jpeg with an ICC profile of garbage", saved(picture(), "JPEG", icc_profile=b"x"))
    for number in range(1, 9):
        size = (WIDTH, HEIGHT) if number < 5 else (HEIGHT, WIDTH)
        yield Case(f"jpeg EXIF orientation {number}", oriented(number), size=size)
    yield Case("jpeg EXIF orientation 200", oriented(200))


def _png() -> Iterator[Case]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield Case(f"png {mode}", saved(picture(mode), "PNG"))
    deep = Image.fromarray(np.asarray(picture("L"), np.uint16) * 257)
    yield Case("png 16-bit grey", saved(deep, "PNG"))
    yield Case("png palette with transparency", saved(picture("P"), "PNG", transparency=3))
    yield Case("png RGB with a transparent colour", saved(picture(), "PNG", transparency=(1, 2, 3)))
    yield Case("png animated", saved(picture(), "PNG", save_all=True, append_images=[picture("L")]))
    yield Case("png of one pixel", saved(Image.new("RGB", (1, 1)), "PNG"), size=(1, 1))
    yield Case("png 1 x 4000", saved(Image.new("RGB", (1, 4000)), "PNG"), size=(1, 4000))


def _others() -> Iterator[Case]:
    for kind, suffix in (("WEBP", "webp"), ("AVIF", "avif")):
        yield Case(f"{suffix} lossy", saved(picture(), kind))
        yield Case(f"{suffix} with alpha", saved(picture("RGBA"), kind))
        yield Case(
            f"{suffix} animated",
            saved(picture(), kind, save_all=True, append_images=[picture().rotate(90)]),
        )
    yield Case("webp lossless", saved(picture(), "WEBP", lossless=True))
    yield Case("gif", saved(picture("P"), "GIF"))
    yield Case("gif with transparency", saved(picture("P"), "GIF", transparency=2))
    yield Case(
        "gif animated", saved(picture("P"), "GIF", save_all=True, append_images=[picture("P")] * 3)
    )
    for mode in ("1", "L", "P", "RGB"):
        yield Case(f"bmp {mode}", saved(picture(mode), "BMP"))
    yield Case("tiff", saved(picture(), "TIFF"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield Case(f"tiff {compression}", saved(picture(), "TIFF", compression=compression))
    yield Case("tiff CMYK", saved(picture("CMYK"), "TIFF"))
    yield Case("tiff 16-bit grey", saved(picture("I;16"), "TIFF"))
    yield Case("tiff 32-bit float", saved(picture("F"), "TIFF"))
    yield Case(
        "tiff of two pages", saved(picture(), "TIFF", save_all=True, append_images=[picture()])
    )
    yield Case("heic", heif(quality=80))
    yield Case("heic lossless", heif(quality=-1))
    yield Case("jpeg xl", saved(picture(), "JXL"))
    yield Case("jpeg xl lossless with alpha", saved(picture("RGBA"), "JXL", lossless=True))
    yield Case("jpeg xl grey", saved(picture("L"), "JXL"))
    yield Case("jpeg xl in boxes", saved(picture(), "JXL", use_container=True))
    yield Case("jpeg xl made from a jpeg", from_jpeg())
    yield Case("camera raw (dng)", dng())
    yield Case("camera raw (dng) turned", dng(orientation=6), size=(HEIGHT, WIDTH))


def _damaged() -> Iterator[Case]:
    jpeg, png = saved(picture(), "JPEG"), saved(picture(), "PNG")
    yield Case("jpeg with its tail cut off", jpeg[: len(jpeg) * 9 // 10])
    yield Case("jpeg cut within its headers", jpeg[: len(jpeg) // 3], "damaged picture")
    yield Case("jpeg of its first 30 bytes", jpeg[:30], "damaged picture")
    yield Case("png cut in half", png[: len(png) // 2], "damaged picture")
    yield Case("png with a wrong checksum", png[:50] + b"\0\0\0\0" + png[54:], "damaged picture")
    for kind in ("WEBP", "GIF", "BMP", "TIFF"):
        whole = saved(picture("P" if kind == "GIF" else "RGB"), kind)
        yield Case(f"{kind.lower()} cut in half", whole[: len(whole) // 2], "picture")
    whole = heif(quality=80)
    yield Case("heic cut in half", whole[: len(whole) // 2], "picture")
    whole = saved(picture(), "JXL")
    yield Case("jpeg xl cut in half", whole[: len(whole) // 2], "damaged picture")
    yield Case("jpeg xl of its first 2 bytes", whole[:2], "damaged picture")
    whole = dng()
    yield Case("camera raw (dng) cut in half", whole[: len(whole) // 2], "damaged picture")


def _hostile() -> Iterator[Case]:
    yield Case("zero bytes", b"", "empty")
    yield Case("one byte", b"\xff", "not a picture")
    yield Case("text named .jpg", b"a letter to nobody\n" * 50, "not a picture")
    yield Case("HTML named .png", b"<!doctype html><title>404</title>", "not a picture")
    yield Case("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture")
    yield Case("PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not a picture")
    yield Case("zip", b"PK\x03\x04" + b"\0" * 60, "not a picture")
    yield Case("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")
    yield Case("zeros", b"\0" * 5000, "not a picture")
    yield Case("png bomb 30000 x 30000", png_bomb(30_000, 30_000), "too many pixels")
    yield Case("png bomb 2^31-1 squared", png_bomb(2**31 - 1, 2**31 - 1), "too many pixels")
    yield Case("png of no width", png_bomb(0, 5), "picture")
    # A small header: height in 18 bits, then the ratio 1:1, and nothing more.
    jxl = (0b10 << 1 | (199_999 << 3) | (1 << 21)).to_bytes(4, "little")
    yield Case("jpeg xl bomb 200000 x 200000", b"\xff\x0a" + jxl + b"\0" * 40, "too many pixels")
    huge = Image.new("1", (20_000, 20_000))
    yield Case("gif bomb 20000 x 20000", saved(huge, "GIF"), "too many pixels")
    yield Case("tiff bomb 20000 x 20000", saved(huge, "TIFF", compression="group4"), "too many")
