"""Estimates the memory that decoding an image takes, from its header.

The constants were measured with the present decoders: `benchmarks/results/decode_memory.md`.
"""

from __future__ import annotations

import io
import sys
from typing import Final

from PIL import Image

from adapters.embedder.spec import ModelSpec
from imaging.camera_raw import is_camera_raw
from imaging.decode import DRAFT_FACTOR
from imaging.jpeg_xl import dimensions, is_jpeg_xl
from imaging.media_types import FORMATS
from imaging.shrink import BYTES_NEEDED, PLAIN_MODES, is_shrinkable
from imaging.upright import UNREADABLE, draft

TIFF_STARTS: Final = (b"II*\0", b"MM\0*")
RAW_TIMES_FILE: Final = 4
"""Developing takes about this many times the file's size; files have 12 to 16 bits per pixel."""
JPEG_XL_BYTES: Final = 12
"""Per pixel: 7, or 19 with transparency, which the size header does not show."""
HEIF_BYTES: Final = 8
AVIF_BYTES: Final = 11
"""Per pixel: the decoder's planes, RGB twice while it is copied, and Pillow's four bytes."""
WEBP_LOSSLESS_BYTES: Final = 7
"""Per pixel: its decoder decodes the whole image before it scales it."""
COEFFICIENT_BYTES: Final = 2
"""All coefficients of a progressive JPEG are held in memory, whatever its scaled size."""


def memory_needed(data: bytes, spec: ModelSpec) -> int:
    """Approximate peak memory, in bytes, of decoding an image for a model."""
    edge = DRAFT_FACTOR * max(spec.width, spec.height)
    return memory_needed_at(data, edge, max_pixels=sys.maxsize)


def memory_needed_at(data: bytes, edge: int, *, max_pixels: int) -> int:
    """Approximate peak memory, in bytes, of `open_upright`, without the file itself.

    0 if the file cannot be read or has more than `max_pixels`, because then nothing is decoded. A
    header can therefore not demand more memory than an accepted image may take.
    """
    raw = 0
    try:
        raw = RAW_TIMES_FILE * len(data) if is_camera_raw(data) else 0
        if raw and not data.startswith(TIFF_STARTS):
            return raw
        if is_jpeg_xl(data):
            width, height = dimensions(data)
            return width * height * JPEG_XL_BYTES if width * height <= max_pixels else 0
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                return 0
            # A file that looks like a raw TIFF may be an ordinary TIFF.
            return max(raw, _estimate(image, data, edge))
    except UNREADABLE:
        return raw


def _estimate(image: Image.Image, data: bytes, edge: int) -> int:
    pixels = image.width * image.height
    kind = image.format or ""
    if kind == "AVIF":
        return pixels * (AVIF_BYTES if image.mode == "RGB" else AVIF_BYTES + 8)
    if kind == "HEIF":
        return pixels * HEIF_BYTES
    if kind == "WEBP" and b"VP8L" in data[:4096]:
        return pixels * WEBP_LOSSLESS_BYTES
    if is_shrinkable(kind, pixels) and image.mode in PLAIN_MODES:
        return pixels * BYTES_NEEDED[kind]
    coefficients = 0
    if kind == "JPEG" and image.info.get("progressive"):
        # layer: (component, horizontal sampling, vertical sampling, table) of each component.
        layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
        samples = [across * down for _, across, down, _ in layers] or [1, 1, 1]
        coefficients = pixels * COEFFICIENT_BYTES * sum(samples) // (max(samples) or 1)
    draft(image, edge)
    return coefficients + image.width * image.height * _pixel_bytes(image)


def _pixel_bytes(image: Image.Image) -> int:
    """Bytes per pixel in Pillow's mode and as RGB, and for a background if it is transparent."""
    stored = 1 if image.mode in ("1", "L", "P") else 4
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return stored + 4 + 4 + 4
    return stored if image.mode == "RGB" else stored + 4
