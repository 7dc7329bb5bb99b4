"""Which frame of an animation is its picture: the first one that shows something."""

from __future__ import annotations

from typing import Final

from PIL import Image

from adapters.colours import TRANSPARENT

_ANIMATED: Final = ("GIF", "PNG", "WEBP", "AVIF")
"""Pillow's names of those whose further pictures are frames, not pages or parts."""
MOST_FRAMES: Final = 100
"""Looked at, of an animation that begins with nothing."""


def to_what_shows(image: Image.Image) -> None:
    """Load the first frame that is not all transparent; the very first, if there is none.

    Animations often begin with an empty frame, from which they fade in.
    """
    if image.format not in _ANIMATED or not _is_invisible(image):
        return
    if not getattr(image, "is_animated", False):
        return
    try:
        for number in range(1, MOST_FRAMES):
            image.seek(number)
            image.load()
            if not _is_invisible(image):
                return
    except (EOFError, OSError, ValueError, SyntaxError):
        pass  # the end, or damage, which leaves an animation that shows nothing
    image.seek(0)
    image.load()


def _is_invisible(image: Image.Image) -> bool:
    if image.mode in TRANSPARENT:
        alpha = image.getchannel("A" if "A" in image.getbands() else "a")
    elif "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return False
    return alpha.getextrema() == (0, 0)
