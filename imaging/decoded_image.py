"""What decoding a picture gives, for those who never touch its bytes."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.embedder.arrays import Pixels
from adapters.index.facts import FACTS_VERSION, ImageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture(ImageFacts):
    """A decoded image: its facts, and pixels for the model (uint8 [H, W, 3]).

    `pixels_since` is the `FACTS_VERSION` since which these pixels are made of such a file: a vector
    of an earlier one is of other pixels.
    """

    pixels: Pixels
    pixels_since: int = 0
    facts_version: int = FACTS_VERSION
