"""Damaged images, which are shown in part or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from tests.corpus.builders import (
    Case,
    above,
    card,
    heif,
    large,
    saved,
    shown,
    vips,
)
from tests.corpus.camera_raw import dng

DAMAGED = "damaged picture"


def cases() -> Iterator[Case]:
    """All of these."""
    yield from _shown_in_part()
    yield from _not_shown()


def _shown_in_part() -> Iterator[Case]:
    whole = large()
    rows = whole.height
    jpeg = saved(whole, "JPEG")
    data = jpeg[: len(jpeg) * 9 // 10]
    yield shown("jpeg without its last bytes", data, "image/jpeg", whole, 20)
    data = jpeg[: len(jpeg) // 2]
    upright = above(whole, rows // 2, "#808080")
    yield shown("jpeg cut in half", data, "image/jpeg", upright, 15)
    progressive = saved(whole, "JPEG", progressive=True)
    data = progressive[: len(progressive) // 2]
    yield shown("jpeg progressive cut in half", data, "image/jpeg", whole, 20)
    data = progressive[:-2]
    yield shown("jpeg progressive without its end", data, "image/jpeg", whole)
    hit = jpeg[: len(jpeg) // 2] + b"\xff\xd9" + jpeg[len(jpeg) // 2 :]
    white = Image.new("RGB", card().size, "white")
    for kind in ("JPEG", "PNG"):
        data = saved(white, kind)[: -2 if kind == "JPEG" else -12]
        name = f"{kind.lower()} all white without its end"
        yield shown(name, data, f"image/{kind.lower()}", white)
    yield shown("jpeg with an end marker in its middle", hit, "image/jpeg", upright, 15)
    for kind in ("PNG", "TIFF"):
        data = saved(whole, kind)
        half = data[: len(data) // 2]
        upright = above(whole, rows // 2, "white")
        yield shown(f"{kind.lower()} cut in half", half, f"image/{kind.lower()}", upright)
    png = saved(whole, "PNG")
    data = png[: len(png) * 9 // 10]
    yield shown(
        "png without its last bytes", data, "image/png", above(whole, rows * 9 // 10, "white")
    )
    hit = png[: len(png) // 2] + bytes(4) + png[len(png) // 2 + 4 :]
    upright = above(whole, rows // 2, "white")
    yield shown("png with damaged bytes in its middle", hit, "image/png", upright)
    interlaced = bytes(vips(whole).pngsave_buffer(interlace=True))
    half = interlaced[: len(interlaced) // 2]
    yield shown("png interlaced cut in half", half, "image/png", whole, 20)
    bmp = saved(whole, "BMP")
    upright = whole.copy()
    upright.paste("white", (0, 0, whole.width, rows // 2))
    yield shown("bmp cut in half", bmp[: len(bmp) // 2], "image/bmp", upright)
    plain = saved(whole.quantize(64), "GIF", interlace=0)
    upright = above(whole, rows // 2, "white")
    yield shown("gif cut in half", plain[: len(plain) // 2], "image/gif", upright, 20)
    interlaced = saved(whole.quantize(64), "GIF", interlace=1)
    half = interlaced[: len(interlaced) // 2]
    yield shown("gif interlaced cut in half", half, "image/gif", whole, 20)
    pages = saved(card(), "TIFF", save_all=True, append_images=[large()])
    yield shown("tiff of two pages, the second cut", pages[:-5000], "image/tiff")


def _not_shown() -> Iterator[Case]:
    jpeg, png = saved(card(), "JPEG"), saved(card(), "PNG")
    yield Case("jpeg cut within its headers", jpeg[: len(jpeg) // 3], DAMAGED)
    yield Case("jpeg of its first 30 bytes", jpeg[:30], DAMAGED)
    start = jpeg.index(b"\xff\xda") + 14
    yield Case("jpeg without its pixels", jpeg[:start], DAMAGED)
    frame = jpeg.index(b"\xff\xc0")
    none = bytearray(jpeg)
    for component in range(3):
        none[frame + 11 + 3 * component] = 0
    yield Case("jpeg whose colours have no samples", bytes(none), DAMAGED)
    yield Case("png with a wrong checksum", png[:50] + b"\0\0\0\0" + png[54:], DAMAGED)
    yield Case("png without its pixels", png[:33] + png[-12:], DAMAGED)
    yield Case("png of its first 33 bytes", png[:33], "picture")
    for kind in ("WEBP", "AVIF"):
        whole = saved(large(), kind)
        yield Case(f"{kind.lower()} cut in half", whole[: len(whole) // 2], "picture")
    whole = saved(card("P"), "GIF")
    yield Case("gif without its pixels", whole[:20], "picture")
    whole = heif(quality=80)
    yield Case("heic cut in half", whole[: len(whole) // 2], "picture")
    whole = saved(card(), "JXL", effort=3)
    yield Case("jpeg xl cut in half", whole[: len(whole) // 2], DAMAGED)
    yield Case("jpeg xl of its first 2 bytes", whole[:2], DAMAGED)
    whole = saved(large(), "TIFF", compression="tiff_lzw")
    yield Case("tiff of its first 100 bytes", whole[:100], "picture")
    whole = dng()
    yield Case("camera raw (dng) cut in half", whole[: len(whole) // 2], DAMAGED)
