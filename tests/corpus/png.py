"""PNGs, as programs write them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.builders import (
    Case,
    card,
    clear,
    exif,
    gradient,
    grey_card,
    grey_png,
    on_white,
    png_chunk,
    png_with,
    saved,
    shown,
    turned,
    vips,
)

TYPE = "image/png"


def cases() -> Iterator[Case]:
    """All of these."""
    yield from _colours()
    yield from _beside()
    yield from _turned()
    yield from _moving()


def _colours() -> Iterator[Case]:
    upright = {"1": card("1").convert("RGB"), "L": grey_card(), "LA": grey_card()}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield shown(f"png {mode}", saved(card(mode), "PNG"), TYPE, upright.get(mode))
    deep = np.asarray(card("L"), np.uint16) * 257
    yield shown("png 16-bit grey", saved(Image.fromarray(deep), "PNG"), TYPE, grey_card())
    opaque = np.dstack([deep, np.full_like(deep, 65535)])
    data = bytes(vips(opaque).copy(interpretation="grey16").pngsave_buffer())
    yield shown("png 16-bit grey with alpha", data, TYPE, grey_card())
    colours = np.asarray(card(), np.uint16) * 257
    data = bytes(vips(colours).copy(interpretation="rgb16").pngsave_buffer())
    yield shown("png 16-bit RGB", data, TYPE)
    half = np.dstack([colours, np.full(colours.shape[:2], 32768, np.uint16)])
    data = bytes(vips(half).copy(interpretation="rgb16").pngsave_buffer())
    yield shown("png 16-bit RGB half transparent", data, TYPE, _paler())
    for bits in (2, 4):
        yield shown(f"png {bits}-bit grey", grey_png(bits), TYPE, grey_card(), distance=40)
    transparent = saved(gradient("P"), "PNG", transparency=3)
    upright_p = on_white(Image.open(io.BytesIO(transparent)).convert("RGBA"))
    yield shown("png palette with transparency", transparent, TYPE, upright_p)
    palette = card("P")
    alphas = bytes([128] * 256)
    data = saved(palette, "PNG", transparency=alphas)
    yield shown("png palette half transparent", data, TYPE, _paler())
    data = saved(gradient(), "PNG", transparency=(1, 2, 3))
    yield shown("png RGB with a transparent colour", data, TYPE, gradient())
    red = card().getpixel((1, 1))
    without = card()
    without.paste("white", (0, 0, 24, 16))
    data = saved(card(), "PNG", transparency=red)
    yield shown("png RGB with a corner that is transparent", data, TYPE, without)
    data = bytes(vips(card()).pngsave_buffer(interlace=True))
    yield shown("png interlaced", data, TYPE)
    one = Image.new("RGB", (1, 1), (9, 9, 9))
    yield shown("png of one pixel", saved(one, "PNG"), TYPE, one)
    long = Image.new("RGB", (1, 4000), (200, 9, 9))
    yield shown("png 1 x 4000", saved(long, "PNG"), TYPE, long)
    white = Image.new("RGB", card().size, "white")
    yield shown("png all transparent", saved(clear(), "PNG"), TYPE, white)


def _paler() -> Image.Image:
    layer = card("RGBA")
    layer.putalpha(128)
    return on_white(layer)


def _beside() -> Iterator[Case]:
    text = b"Comment\0"
    packed = zlib.compress(b"t" * 2_000_000)
    chunks = {
        "2 MB of text": png_chunk(b"tEXt", text + b"t" * 2_000_000),
        "2 MB of packed text": png_chunk(b"zTXt", text + b"\0" + packed),
        "2 MB of international text": png_chunk(b"iTXt", text + b"\1\0\0\0" + packed),
        "200 MB of packed text": png_chunk(b"zTXt", text + b"\0" + zlib.compress(bytes(8_000_000)))
        * 25,
        "an ICC profile of 1.5 MB": _profile(1_500_000),
        "an ICC profile of 20 MB": _profile(20_000_000),
        "an ICC profile of garbage": png_chunk(b"iCCP", b"x\0\0garbage"),
        "packed text of garbage": png_chunk(b"zTXt", text + b"\0garbage"),
        "text of a wrong checksum": png_chunk(b"tEXt", text)[:-4] + bytes(4),
        "an unknown chunk": png_chunk(b"quRk", b"?" * 99),
        "a truncated density": png_chunk(b"pHYs", b"\0\0"),
        "a truncated gamma": png_chunk(b"gAMA", b"\0"),
        "EXIF of garbage": png_chunk(b"eXIf", b"garbage" * 9),
        "a truncated animation header": png_chunk(b"acTL", b"\0\0"),
    }
    for name, chunk in chunks.items():
        yield shown(f"png with {name}", png_with(chunk), TYPE)
    yield shown(
        "png with 2 MB of text after its pixels", png_with(chunks["2 MB of text"], last=True), TYPE
    )
    data = png_with(last=True)
    yield shown("png with trailing bytes", data + b"\0" * 500, TYPE)
    yield shown("png without its end", data[:-12], TYPE)
    yield shown("png with a wrong checksum of its pixels", data[:-16] + bytes(4) + data[-12:], TYPE)
    yield shown("png with a wrong checksum of its header", data[:29] + bytes(4) + data[33:], TYPE)
    yield Case("png after a line feed", b"\n" + data, "not a picture")
    yield shown("png named .jpg", data, TYPE)


def _profile(size: int) -> bytes:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb + bytes(size), 1))


def _turned() -> Iterator[Case]:
    for number in range(2, 9):
        data = saved(turned(card(), number), "PNG", exif=exif(number))
        yield shown(f"png EXIF orientation {number}", data, TYPE)


def _moving() -> Iterator[Case]:
    data = saved(card(), "PNG", save_all=True, append_images=[card("L")])
    yield shown("png animated", data, TYPE)
    frames = [clear(), card("RGBA")]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield shown("png animated, first frame transparent", data, TYPE)
    data = saved(clear(), "PNG", save_all=True, append_images=frames, default_image=True)
    yield shown("png animated, default image transparent", data, TYPE)
