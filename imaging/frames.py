"""Which frame of an animation is its picture: the first one that shows something."""

from __future__ import annotations

from typing import Final

from PIL import Image

from imaging.colours import TRANSPARENT

_ANIMATED: Final = ("GIF", "PNG", "WEBP", "AVIF")
"""Pillow's names of those whose further pictures are frames, not pages or parts."""
MOST_FRAMES: Final = 100
"""Looked at, of an animation that begins with nothing."""


def to_what_shows(image: Image.Image) -> Image.Image:
    """The loaded picture at its first frame that is not all transparent, or else at its very first.

    Animations often begin with an empty frame, from which they fade in. A PNG's picture that is
    none of its frames is for programs that know no animations.
    """
    is_stand_in = bool(getattr(image, "default_image", False))
    if image.format not in _ANIMATED or not (is_stand_in or _is_invisible(image)):
        return _uncovered(image)
    if not getattr(image, "is_animated", False):
        return _uncovered(image)
    try:
        for number in range(1, MOST_FRAMES):
            image.seek(number)
            image.load()
            if not _is_invisible(image):
                return image
    except (EOFError, OSError, ValueError, SyntaxError):
        pass  # the end, or damage, which leaves an animation that shows nothing
    image.seek(0)
    image.load()
    return image


def _uncovered(image: Image.Image) -> Image.Image:
    """The first frame of a GIF, transparent where it does not reach: Pillow gives that a colour."""
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
