"""Bytes to the pixels a model wants, and what a picture says of itself.

Untrusted input: pixel counts are checked before anything is decoded, and whatever Pillow cannot
read whole is refused with the reason. Imported in worker processes alone (`adapters.sandbox`), as
no check keeps a decoder from crashing.
"""

import io
import logging
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import pillow_jxl  # noqa: F401 (makes JPEG XL known to Pillow)
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from adapters.camera_raw import develop, exif_of, is_camera_raw
from adapters.decoded import Picture
from adapters.errors import DecoderMemory, Rejected
from adapters.exif import Description, described, loaded
from adapters.jpeg_xl import dimensions, is_jpeg_xl, xmp_of
from adapters.media_types import FORMATS, RAW_MEDIA_TYPE
from adapters.model_spec import ModelSpec
from adapters.shrink import is_for_us, shrunk

register_heif_opener()
# Makes every plugin known now: `Image.open(formats=...)` looks names up in what is loaded.
Image.init()
# Our own limit, a setting, is checked before anything is unpacked; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None

logger = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS: Final = 178_956_970
DRAFT_FACTOR: Final = 2
"""A JPEG is decoded to at least this many times the model's input, each way."""
LONGEST: Final = 64
"""So many times as long as the model's input is, a picture's ends do not reach its middle."""
JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Everything Pillow and its plugins raise for input they cannot read.
UNREADABLE: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Upright:
    """A decoded picture as RGB, perhaps scaled down; `width` and `height` are the original's.

    `profile` is the ICC profile that the pixels are still in, if there is one.
    """

    image: Image.Image
    width: int
    height: int
    media_type: str
    about: Description
    profile: bytes | None = None


def decode(data: bytes, spec: ModelSpec, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Decode, turn upright, flatten onto the background and resize as `spec` says.

    Raises:
        Rejected: as `open_upright`.
    """
    edge = DRAFT_FACTOR * max(spec.width, spec.height)
    found = open_upright(data, edge=edge, background=spec.background, max_pixels=max_pixels)
    return Picture(
        pixels=np.asarray(resize(found.image, spec), dtype=np.uint8),
        width=found.width,
        height=found.height,
        media_type=found.media_type,
        taken_at=found.about.taken_at,
        camera=found.about.camera,
        latitude=found.about.latitude,
        longitude=found.about.longitude,
    )


def open_upright(data: bytes, *, edge: int, background: str, max_pixels: int) -> Upright:
    """The upright picture as RGB on `background`, at least `edge` each way if it is that large.

    Raises:
        Rejected: empty, not a picture, an unsupported format, damaged, or over `max_pixels`.
        DecoderMemory: there was not enough of it.
    """
    if not data:
        raise Rejected("the file is empty")
    try:
        if is_camera_raw(data):
            image, width, height = develop(data, max_pixels)
            about = described(loaded(lambda: exif_of(data)))
            return Upright(image, width, height, RAW_MEDIA_TYPE, about)
        if is_jpeg_xl(data):
            # Its plugin unpacks all when it opens a file.
            _check_pixels(*dimensions(data), max_pixels)
        try:
            return _opened(data, edge, background, max_pixels)
        except OSError as error:
            if not (data.startswith(JPEG_START) and "truncated" in str(error)):
                raise
            # As browsers do: what there is of a JPEG is shown, and the rest is grey.
            return _opened(data + JPEG_END, edge, background, max_pixels)
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except MemoryError as error:
        raise DecoderMemory("decoding it takes more memory than there is for it") from error
    except UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Rejected(f"too many pixels: {width} x {height} is more than {max_pixels}")


def _opened(data: bytes, edge: int, background: str, max_pixels: int) -> Upright:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if image.format == "JXL" and (packet := xmp_of(data)):
            image.info.setdefault("xmp", packet)
        _check_pixels(width, height, max_pixels)
        kind = image.format or ""
        media_type = Image.MIME.get(kind, "application/octet-stream")
        small = shrunk(data, kind, edge, background) if is_for_us(kind, width * height) else None
        if small is not None:
            # A PNG would be decoded whole for what may come after its pixels.
            about = _described(image if kind == "TIFF" else small)
            decoded = small
        else:
            draft(image, edge)
            image.load()
            about = _described(image)
            decoded = image
        # What its numbers mean, where they are still the file's own.
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        decoded_width = decoded.width
        if kind != "JXL":  # whose decoder has turned it
            _turn_upright(decoded)
        if decoded.width != decoded_width and kind != "TIFF":  # Pillow tells its turned size
            width, height = height, width
        return Upright(flatten(decoded, background), width, height, media_type, about, profile)


def draft(image: Image.Image, edge: int) -> None:
    """Let the JPEG decoder scale by 1/2, 1/4 or 1/8, to no less than `edge` each way.

    Its scaled decoding averages in the frequency domain, which costs a fraction of the full one;
    the final resize then still halves at least, so little of the decoder's filter is left to see.
    """
    if image.format == "JPEG":
        image.draft(None, (edge, edge))


def _described(image: Image.Image) -> Description:
    return described(loaded(image.getexif), image.info.get("xmp"))


def _turn_upright(image: Image.Image) -> None:
    """Turn the picture as its EXIF orientation says, in place."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except UNREADABLE as error:
        # Damaged metadata is no reason to lose the picture.
        logger.info("EXIF orientation ignored: %s", error)


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
    image = _middle(image, spec)
    # open_clip's: resize until the target is covered, then torchvision's CenterCrop, which rounds.
    scale_width, scale_height = _covering(image.width, image.height, spec.width, spec.height)
    scaled = image.resize((scale_width, scale_height), resampling)
    left = round((scale_width - spec.width) / 2)
    top = round((scale_height - spec.height) / 2)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _middle(image: Image.Image, spec: ModelSpec) -> Image.Image:
    """The picture, of a very long one as much as the crop and the filters at its ends may see.

    Scaled whole, one that is a pixel wide would take any amount of memory.
    """
    ratio = min(image.width / spec.width, image.height / spec.height)
    across, down = (
        max(0, length - round(LONGEST * target * ratio)) // 2
        for length, target in ((image.width, spec.width), (image.height, spec.height))
    )
    if not (across or down):
        return image
    return image.crop((across, down, image.width - across, image.height - down))


def _covering(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    """The size, aspect kept, at which the picture just covers the target.

    Of a square, torchvision's Resize(int), where the long edge truncates; of anything else,
    open_clip's ResizeKeepRatio, where both round.
    """
    if target_width != target_height:
        ratio = min(height / target_height, width / target_width)
        return round(width / ratio), round(height / ratio)
    if width <= height:
        return target_width, int(target_width * height / width)
    return int(target_height * width / height), target_height
