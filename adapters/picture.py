"""Bytes to the pixels a model wants, and what a picture says of itself.

Untrusted input: pixel counts are checked before anything is decoded, and whatever Pillow cannot
read whole is refused with the reason.
"""

import io
import logging
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from adapters.arrays import Pixels
from adapters.errors import Rejected
from adapters.media_types import FORMATS
from adapters.model_spec import ModelSpec

register_heif_opener()
# Makes every plugin known now: `Image.open(formats=...)` looks names up in what is loaded.
Image.init()
# Our own limit, a setting, is checked before anything is unpacked; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None

logger = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS: Final = 178_956_970
DRAFT_FACTOR: Final = 2
"""A JPEG is decoded to at least this many times the model's input, each way."""

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Everything Pillow and its plugins raise for input they cannot read.
_UNREADABLE: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: pixels for the model (uint8 [H, W, 3]) and its own properties.

    `width` and `height` are those of the upright original; `taken_at` takes EXIF's local time for
    UTC where the file states no offset; `latitude` and `longitude` are in degrees.
    """

    pixels: Pixels
    width: int
    height: int
    media_type: str
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def decode(data: bytes, spec: ModelSpec, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Decode, turn upright, flatten onto the background and resize as `spec` says.

    Raises:
        Rejected: empty, not a picture, an unsupported format, damaged, or over `max_pixels`.
    """
    if not data:
        raise Rejected("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _decode(image, spec, max_pixels)
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except _UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error


def _decode(image: Image.Image, spec: ModelSpec, max_pixels: int) -> Picture:
    width, height = image.size
    if width * height > max_pixels:
        raise Rejected(f"too many pixels: {width} x {height} is more than {max_pixels}")
    media_type = Image.MIME.get(image.format or "", "application/octet-stream")
    _draft(image, spec)
    image.load()
    taken_at, camera, latitude, longitude = _described(image)
    decoded_width = image.width
    _turn_upright(image)
    if image.width != decoded_width:
        width, height = height, width
    pixels = resize(flatten(image, spec.background), spec)
    return Picture(
        pixels=np.asarray(pixels, dtype=np.uint8),
        width=width,
        height=height,
        media_type=media_type,
        taken_at=taken_at,
        camera=camera,
        latitude=latitude,
        longitude=longitude,
    )


def _draft(image: Image.Image, spec: ModelSpec) -> None:
    """Let the JPEG decoder scale by 1/2, 1/4 or 1/8, to no less than twice the model's input.

    Its scaled decoding averages in the frequency domain, which costs a fraction of the full one;
    the final resize then still halves at least, so little of the decoder's filter is left to see.
    """
    if image.format == "JPEG":
        edge = DRAFT_FACTOR * max(spec.width, spec.height)
        image.draft(None, (edge, edge))


def memory_needed(data: bytes, spec: ModelSpec) -> int:
    """About how many bytes decoding this picture takes at its peak; 0 if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _draft(image, spec)
            pixels = image.width * image.height
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            # Pillow keeps a pixel in four bytes; others than plain ones are converted as well.
            return pixels * (4 if plain else 4 + 4 + 4)
    except _UNREADABLE:
        return 0


def _turn_upright(image: Image.Image) -> None:
    """Turn the picture as its EXIF orientation says, in place."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except _UNREADABLE as error:
        # Damaged metadata is no reason to lose the picture.
        logger.info("EXIF orientation ignored: %s", error)


def _described(
    image: Image.Image,
) -> tuple[datetime | None, str | None, float | None, float | None]:
    try:
        exif = image.getexif()
        return _taken_at(exif), _camera(exif), *_position(exif)
    except _UNREADABLE as error:
        logger.info("EXIF ignored: %s", error)
        return None, None, None, None


def flatten(image: Image.Image, background: str) -> Image.Image:
    """The picture as RGB: 16-bit greys scaled to 8 bits, transparency laid on `background`."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey_to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, background)
        canvas.alpha_composite(layer)
        return canvas.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits lose their low byte; other ranges are spread over 0 to 255."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if image.mode == "F" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    grey = np.empty(values.shape, np.uint8)
    # Row by row: floats of the whole picture would take eight times its memory.
    for row, result in zip(values, grey, strict=True):
        if image.mode != "F" and low >= 0 and high <= 65535:
            scaled = row / 257.0
        else:
            exact = np.nan_to_num(row.astype(np.float64), nan=low, posinf=high, neginf=low)
            scaled = (exact - low) * (255.0 / ((high - low) or 1.0))
        result[:] = np.clip(np.rint(scaled), 0, 255)
    return Image.fromarray(grey)


def resize(image: Image.Image, spec: ModelSpec) -> Image.Image:
    """The RGB picture at the model's input size, by the model's own rule."""
    resampling = _RESAMPLING[spec.interpolation]
    if spec.resize_mode == "stretch":
        return image.resize((spec.width, spec.height), resampling)
    # torchvision's Resize(int) then CenterCrop: the long edge truncates, the crop rounds.
    scale_width, scale_height = _covering(image.width, image.height, spec.width, spec.height)
    scaled = image.resize((scale_width, scale_height), resampling)
    left = round((scale_width - spec.width) / 2)
    top = round((scale_height - spec.height) / 2)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _covering(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    """The size, aspect kept, at which the picture just covers the target."""
    if width * target_height <= height * target_width:
        return target_width, max(target_height, int(target_width * height / width))
    return max(target_width, int(target_height * width / height)), target_height


def _taken_at(exif: Image.Exif) -> datetime | None:
    details = exif.get_ifd(ExifTags.IFD.Exif)
    text = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    if not isinstance(text, str):
        return None
    offset = details.get(ExifTags.Base.OffsetTimeOriginal)
    stamp = text.strip().strip("\0")
    if isinstance(offset, str):
        try:
            return datetime.strptime(f"{stamp}{offset.strip()}", "%Y:%m:%d %H:%M:%S%z")
        except ValueError:
            pass  # An offset no clock has: the time itself is still worth having.
    try:
        return datetime.strptime(stamp, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _camera(exif: Image.Exif) -> str | None:
    parts = [exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)]
    make, model = (
        part.strip("\0 ").encode("utf-8", "replace").decode() if isinstance(part, str) else ""
        for part in parts
    )
    # Most makers repeat their name in the model's.
    return (model if model.startswith(make) else f"{make} {model}").strip() or None


def _position(exif: Image.Exif) -> tuple[float, float] | tuple[None, None]:
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef))
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None, None
    return latitude, longitude


def _degrees(parts: object, reference: object) -> float | None:
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not np.isfinite(value):
        return None
    return -value if reference in ("S", "W") else value
