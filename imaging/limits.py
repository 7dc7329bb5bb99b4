"""The limit on an image's pixels."""

from __future__ import annotations


class TooManyPixels(Exception):
    """The header states more pixels than allowed; nothing is decoded."""


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise `TooManyPixels` if this is more than `max_pixels`."""
    if width * height > max_pixels:
        raise TooManyPixels(f"too many pixels: {width} x {height} is more than {max_pixels}")
