"""Bytes to the pixels a model wants, and what a picture says of itself.

Imported in worker processes alone (`imaging.sandbox`), as no check keeps a decoder from crashing.
"""

from typing import Final

import numpy as np
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.index.facts import ImageMetadata, values
from imaging.decoded_image import Picture
from imaging.upright import open_upright

DEFAULT_MAX_PIXELS: Final = 178_956_970
DRAFT_FACTOR: Final = 2
"""A JPEG is decoded to at least this many times the model's input, each way."""
LONGEST: Final = 64
"""So many times as long as the model's input is, a picture's ends do not reach its middle."""

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


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
        pixels_since=found.pixels_since,
        **values(ImageMetadata, found.about),
    )


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
