"""The result of decoding an image. Imports no decoder, so that other processes can use the type."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.embedder.arrays import Pixels
from adapters.index.facts import FACTS_VERSION, ImageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage(ImageFacts):
    """A decoded image: its facts, and pixels for the model (uint8 [H, W, 3]).

    `pixels_since` is the `FACTS_VERSION` since which this file is decoded to these pixels. A vector
    of an earlier version was computed from other pixels.
    """

    pixels: Pixels
    pixels_since: int = 0
    facts_version: int = FACTS_VERSION
