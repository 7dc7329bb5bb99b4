"""Builders of the images in the corpus."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
import pillow_jxl
import pyvips
from PIL import ExifTags, Image

pillow_heif.register_heif_opener()

WIDTH, HEIGHT = 48, 32
INDEXED = "indexed"
SHOWN_BY_BROWSERS = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "image/avif",
    "image/bmp",
)
CORNERS = ((220, 40, 40), (40, 180, 60), (40, 60, 220), (240, 220, 40))
"""Of `card`: upper left, upper right, lower left, lower right."""
_AGAINST = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> the turn that it undoes."""


class Facts(NamedTuple):
    """What is read of a picture besides its pixels; places in degrees, to a millionth."""

    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None

    @classmethod
    def of(cls, source: object) -> Facts:
        """The facts in `source`, by its attributes or keys; texts of times are ISO 8601."""
        known = source if isinstance(source, Mapping) else None
        taken, camera, *coordinates = (
            getattr(source, name) if known is None else known.get(name) for name in cls._fields
        )
        taken = datetime.fromisoformat(taken) if isinstance(taken, str) else taken
        return cls(
            taken, camera, *(None if part is None else round(part, 6) for part in coordinates)
        )


NOTHING = Facts()


@dataclass(frozen=True)
class Case:
    """One file; `outcome` is "indexed" or a part of the reason of its dead letter.

    An indexed one looks like `upright`, but for `distance` of a pixel's 255 on the average.
    `lies` where browsers do not turn it.
    """

    name: str
    data: bytes
    outcome: str = INDEXED
    size: tuple[int, int] = (WIDTH, HEIGHT)
    media_type: str = ""
    upright: Image.Image | None = None
    distance: float = 10.0
    facts: Facts = NOTHING
    lies: bool = False

    @property
    def in_a_browser(self) -> str:
        """What a browser shows: the original or its thumbnail."""
        can = self.media_type in SHOWN_BY_BROWSERS and not self.lies
        return "original" if can else "thumbnail"


def shown(
    name: str,
    data: bytes,
    media_type: str,
    upright: Image.Image | None = None,
    distance: float = 10,
    facts: Facts = NOTHING,
) -> Case:
    """A case that is indexed, and looks like `card` unless another picture is given."""
    upright = card() if upright is None else upright
    return Case(name, data, INDEXED, upright.size, media_type, upright, distance, facts)


def card(mode: str = "RGB") -> Image.Image:
    """Four colours, one in each corner, so that every turn of it looks different."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for number, colour in enumerate(CORNERS):
        left, top = number % 2 * WIDTH // 2, number // 2 * HEIGHT // 2
        image.paste(colour, (left, top, left + WIDTH // 2, top + HEIGHT // 2))
    return _in_mode(image, mode)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "P":  # with its own colours, as a fixed palette would be another picture
        return image.quantize(64)
    return image if mode == "RGB" else image.convert(mode)


def grey_card() -> Image.Image:
    """The card without its colours, as RGB."""
    return card("L").convert("RGB")


def gradient(mode: str = "RGB") -> Image.Image:
    """A gradient with some texture, in any of Pillow's 8-bit modes."""
    across, down = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    pixels = np.stack([across, down, (across + down) % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode in ("LA", "PA"):
        return image.convert("RGBA").convert("LA").convert(mode)
    return _in_mode(image, mode)


def clear(mode: str = "RGBA") -> Image.Image:
    """A fully transparent image."""
    return Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0)).convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def above(image: Image.Image, rows: int, colour: str) -> Image.Image:
    """The first rows of a picture, and one colour below."""
    cut = Image.new("RGB", image.size, colour)
    cut.paste(image.crop((0, 0, image.width, rows)))
    return cut


def large(factor: int = 8) -> Image.Image:
    """The card, larger and with noise that is always the same, so that files are not tiny."""
    image = card().resize((WIDTH * factor, HEIGHT * factor), Image.Resampling.NEAREST)
    noise = np.random.default_rng(7).integers(-12, 13, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "AVIF":
        options.setdefault("speed", 10)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def vips(image: Image.Image | np.ndarray[Any, Any]) -> pyvips.Image:
    """For kinds of files that Pillow cannot write."""
    found = pyvips.Image.new_from_array(np.asarray(image))
    return found.copy(interpretation="srgb") if found.bands > 2 else found


def exif(number: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = number
    return tags


def turned(image: Image.Image, number: int) -> Image.Image:
    """The image as stored in a file with this EXIF orientation."""
    return image.transpose(_AGAINST[number]) if number in _AGAINST else image


def oriented(number: int) -> bytes:
    return saved(turned(card(), number), "JPEG", exif=exif(number), quality=90)


def heif(image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image or gradient()).save(buffer, **options)
    return buffer.getvalue()


def jpeg_xl_of(jpeg: bytes) -> bytes:
    """A JPEG XL file that losslessly contains a JPEG."""
    width, height = Image.open(io.BytesIO(jpeg)).size
    encoder: Any = pillow_jxl.Encoder  # its stub knows no arguments
    encode = encoder(mode="RGB", quality=90, effort=3, num_threads=0)
    return bytes(encode(jpeg, width, height, jpeg_encode=True))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, last: bool = False) -> bytes:
    """The card as PNG, with more chunks before its pixels, or after them."""
    data = saved(card(), "PNG")
    at = len(data) - 12 if last else 33
    return data[:at] + b"".join(chunks) + data[at:]


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
    )


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each marker segment of a JPEG begins, and its two bytes, up to the first scan."""
    at = 2
    while jpeg[at + 1] != 0xDA:
        yield at, jpeg[at : at + 2]
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    yield at, jpeg[at : at + 2]


def grey_png(bits: int) -> bytes:
    """The card as grey with this many bits, which Pillow does not write."""
    levels = np.asarray(card("L")) >> (8 - bits)
    each = (levels[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(each.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data
