"""Selects the frame that represents an animation: the first one that is visible."""

from __future__ import annotations

from typing import Final

from PIL import Image

from imaging.colours import TRANSPARENT

_ANIMATED: Final = ("GIF", "PNG", "WEBP", "AVIF")
"""Pillow formats whose further images are frames, not pages or parts."""
MAX_FRAMES: Final = 100
"""Frames that are tried if the first ones are invisible."""


def select_visible_frame(image: Image.Image) -> Image.Image:
    """The loaded image at its first frame that is not fully transparent, or at its first frame.

    Animations often fade in from an empty frame. The default image of an animated PNG, if it is not
    a frame, is meant for programs that do not support animation, and is not used.
    """
    is_stand_in = bool(getattr(image, "default_image", False))
    if image.format not in _ANIMATED or not (is_stand_in or _is_invisible(image)):
        return _with_transparent_border(image)
    if not getattr(image, "is_animated", False):
        return _with_transparent_border(image)
    try:
        for number in range(1, MAX_FRAMES):
            image.seek(number)
            image.load()
            if not _is_invisible(image):
                return image
    except (EOFError, OSError, ValueError, SyntaxError):
        pass  # the end, or a damaged frame: nothing is visible
    image.seek(0)
    image.load()
    return image


def _with_transparent_border(image: Image.Image) -> Image.Image:
    """A GIF's first frame, transparent outside its extent, where Pillow fills in a colour."""
    reach = getattr(image, "dispose_extent", None)
    if image.format != "GIF" or reach in (None, (0, 0, *image.size)):
        return image
    within = Image.new("L", image.size)
    within.paste(255, reach)
    layer, clear = image.convert("RGBA"), Image.new("RGBA", image.size)
    found = Image.composite(layer, clear, within)
    found.format = image.format
    return found


def _is_invisible(image: Image.Image) -> bool:
    if image.mode in TRANSPARENT:
        alpha = image.getchannel("A" if "A" in image.getbands() else "a")
    elif "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return False
    return alpha.getextrema() == (0, 0)
