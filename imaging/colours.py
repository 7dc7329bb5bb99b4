"""Converts every colour mode to 8-bit RGB, as shown on screens."""

from __future__ import annotations

import io
import logging
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageColor

logger = logging.getLogger(__name__)

TRANSPARENT: Final = ("RGBA", "LA", "PA", "La", "RGBa")
_RGB_BELOW: Final = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA")
"""Pillow modes whose file holds RGB."""
_PROFILED: Final = {"CMYK": b"CMYK", "LAB": b"Lab "}
"""Pillow modes that need an ICC profile -> colour space of such a profile."""
_PROFILE_ERRORS: Final = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def flatten(image: Image.Image, background: str) -> Image.Image:
    """The image as RGB: 16-bit greys scaled to 8 bits, transparency composited on `background`."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey, clear = _grey_to_8_bits(image), image.info.get("transparency")
        if isinstance(clear, int):
            paper = ImageColor.getcolor(background, "L")
            grey.paste(paper, mask=Image.fromarray(np.asarray(image) == clear))
        return grey.convert("RGB")
    if image.mode in _PROFILED:
        return _convert_profiled(image)
    if image.mode in TRANSPARENT or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, background)
        canvas.alpha_composite(layer)
        return canvas.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def profile_of(image: Image.Image) -> bytes | None:
    """The ICC profile of an RGB image, if it has one."""
    profile = image.info.get("icc_profile")
    if image.mode not in _RGB_BELOW or not isinstance(profile, bytes):
        return None
    return profile if _colour_space(profile) == b"RGB " else None


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB image converted from `profile` to sRGB."""
    if profile is None:
        return image
    try:
        return _convert_to_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except _PROFILE_ERRORS as error:
        # As in browsers, a profile that cannot be read is ignored.
        logger.info("ICC profile ignored: %s", error)
        return image


def _convert_profiled(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and _colour_space(profile) == _PROFILED[image.mode]:
        try:
            return _convert_to_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except _PROFILE_ERRORS as error:
            logger.info("ICC profile ignored: %s", error)
    if image.mode == "LAB":
        return _convert_to_srgb(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image.convert("RGB")


def _convert_to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    found = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    return image if found is None else found


def _colour_space(profile: bytes) -> bytes:
    """The header's `data colour space` (ICC.1)."""
    return profile[16:20]


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit greys lose their low byte; other ranges are scaled to 0 to 255.

    Floats are taken as 0 to 1 or 0 to 255 if they fit, else they are scaled as well.
    """
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if image.mode == "F" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    first, last = low, high
    if low >= 0:
        limits = (1.0, 255.0) if image.mode == "F" else (65535.0,)
        usual = next((limit for limit in limits if high <= limit), None)
        first, last = (low, high) if usual is None else (0.0, usual)
    scale = 255.0 / ((last - first) or 1.0)
    grey = np.empty(values.shape, np.uint8)
    # Row by row: floats for the whole image would take eight times its memory.
    for row, result in zip(values, grey, strict=True):
        exact = row.astype(np.float64)
        if image.mode == "F":
            exact = np.nan_to_num(exact, nan=low, posinf=high, neginf=low)
        result[:] = np.clip(np.rint((exact - first) * scale), 0, 255)
    return Image.fromarray(grey)
