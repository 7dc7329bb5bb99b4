"""Decodes an image file to the pixels that a model needs, and reads its metadata.

Imported only in worker processes (`imaging.sandbox`), because decoders may crash.
"""

from typing import Final

import numpy as np
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.index.facts import ImageMetadata, values
from imaging.decoded_image import DecodedImage
from imaging.upright import open_upright

DEFAULT_MAX_PIXELS: Final = 178_956_970
DRAFT_FACTOR: Final = 2
"""A JPEG is decoded to at least this many times the model's input size, in both directions."""
MAX_ASPECT: Final = 64
"""An image longer than this many times the model's input is cropped before it is resized."""

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(data: bytes, spec: ModelSpec, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """Decode, turn upright, flatten onto the background and resize as `spec` says.

    Raises:
        Rejected: as `open_upright`.
    """
    edge = DRAFT_FACTOR * max(spec.width, spec.height)
    found = open_upright(data, edge=edge, background=spec.background, max_pixels=max_pixels)
    return DecodedImage(
        pixels=np.asarray(resize(found.image, spec), dtype=np.uint8),
        width=found.width,
        height=found.height,
        media_type=found.media_type,
        pixels_since=found.pixels_since,
        **values(ImageMetadata, found.description),
    )


def resize(image: Image.Image, spec: ModelSpec) -> Image.Image:
    """The RGB image at the model's input size, resized by the model's own rule."""
    resampling = _RESAMPLING[spec.interpolation]
    if spec.resize_mode == "stretch":
        return image.resize((spec.width, spec.height), resampling)
    image = _crop_long(image, spec)
    # open_clip's: resize until the target is covered, then torchvision's CenterCrop, which rounds.
    scale_width, scale_height = _covering_size(image.width, image.height, spec.width, spec.height)
    scaled = image.resize((scale_width, scale_height), resampling)
    left = round((scale_width - spec.width) / 2)
    top = round((scale_height - spec.height) / 2)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _crop_long(image: Image.Image, spec: ModelSpec) -> Image.Image:
    """The image; of a very long one, only the part that can influence the crop.

    Scaling an image that is one pixel wide as a whole could take any amount of memory.
    """
    ratio = min(image.width / spec.width, image.height / spec.height)
    across, down = (
        max(0, length - round(MAX_ASPECT * target * ratio)) // 2
        for length, target in ((image.width, spec.width), (image.height, spec.height))
    )
    if not (across or down):
        return image
    return image.crop((across, down, image.width - across, image.height - down))


def _covering_size(
    width: int, height: int, target_width: int, target_height: int
) -> tuple[int, int]:
    """The size, with the aspect ratio kept, at which the image just covers the target.

    For a square target as torchvision's Resize(int), which truncates the long edge; else as
    open_clip's ResizeKeepRatio, which rounds both.
    """
    if target_width != target_height:
        ratio = min(height / target_height, width / target_width)
        return round(width / ratio), round(height / ratio)
    if width <= height:
        return target_width, int(target_width * height / width)
    return int(target_height * width / height), target_height
