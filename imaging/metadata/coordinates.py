"""Parses the position at which an image was taken, from EXIF and XMP."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Rational, Real
from typing import Final

from adapters.index.facts import valid_coordinates

NORTH_OR_SOUTH: Final = {
    **dict.fromkeys(("n", "north", "northern", "nord", "norte"), 1),
    **dict.fromkeys(("s", "south", "southern", "sud", "süd", "sur", "sul"), -1),
}
EAST_OR_WEST: Final = {
    **dict.fromkeys(("e", "east", "eastern", "est", "este"), 1),
    **dict.fromkeys(("w", "west", "western"), -1),
}
"""Hemisphere -> sign. `O` is missing: it means east in German and west in French."""
SIXTIETHS: Final = 60
DECIMALS: Final = 6
"""Decimals of a degree; six are a tenth of a metre."""

_WORD: Final = re.compile(r"[^\W\d_]+")
_NUMBERS: Final = re.compile(
    r"([+-]?\d{1,3}(?:\.\d*)?)"
    r"(?:[,:° ]+(\d{1,2}(?:\.\d*)?)(?:[,:'′ ]+(\d{1,2}(?:\.\d*)?)[\"″]?)?['′]?)?°?"
)


def known_coordinates(
    latitude: float | None, longitude: float | None
) -> tuple[float, float] | None:
    """Latitude and longitude; None if they are not degrees on Earth, or both are 0.

    Some cameras write 0, 0 when they do not know the position.
    """
    found = valid_coordinates(latitude, longitude)
    if found is None or not any(round(part, DECIMALS) for part in found):
        return None
    return found


def degrees(parts: object, hemisphere: str | None, signs: dict[str, int]) -> float | None:
    """Degrees from EXIF's degrees, minutes and seconds; None if they cannot be read.

    Without a hemisphere (None) the number's own sign counts; with an unknown one the result is
    None.
    """
    if isinstance(parts, str):
        return degrees_of_text(parts, hemisphere, signs)
    numbers = _numbers(parts)
    if numbers is None:
        return None
    return _with_sign(numbers, hemisphere, signs)


def degrees_of_text(text: str, hemisphere: str | None, signs: dict[str, int]) -> float | None:
    """Degrees from XMP's `48,12.5N` or `48,12,30N`, or from a plain number."""
    text = text.strip()
    if word := _WORD.search(text):
        hemisphere = word[0]
        text = f"{text[: word.start()]} {text[word.end() :]}".strip()
    found = _NUMBERS.fullmatch(text)
    if found is None:
        return None
    return _with_sign([float(part) for part in found.groups() if part], hemisphere, signs)


def _numbers(parts: object) -> list[float] | None:
    """One to three finite numbers; None for anything else."""
    listed = parts if isinstance(parts, tuple | list) else (parts,)
    if not 1 <= len(listed) <= 3:
        return None
    if len(listed) == 3 and _is_nothing(listed[2]):
        # From cameras that write minutes with decimals.
        listed = listed[:2]
    # Pillow's rationals are `Real`; texts and booleans do not count.
    if any(isinstance(part, bool) or not isinstance(part, Real) for part in listed):
        return None
    try:
        numbers = [float(part) for part in listed]
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    # A denominator of 0 results in infinity or NaN.
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _is_nothing(part: object) -> bool:
    """Whether this is 0/0."""
    return isinstance(part, Rational) and part.numerator == part.denominator == 0


def _with_sign(
    numbers: Sequence[float], hemisphere: str | None, signs: dict[str, int]
) -> float | None:
    whole, *sixtieths = numbers
    if not all(0 <= part <= SIXTIETHS for part in sixtieths):
        return None
    size = abs(whole) + sum(part / SIXTIETHS**n for n, part in enumerate(sixtieths, 1))
    if hemisphere is None:
        return math.copysign(size, whole)
    word = _WORD.search(hemisphere)
    sign = signs.get(word[0].casefold()) if word else None
    return None if sign is None else sign * size + 0.0  # turns -0.0 into 0.0
