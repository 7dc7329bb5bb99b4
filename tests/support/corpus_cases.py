"""All odd and hostile pictures of `tests.corpus`, by the names that other tests know."""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus import damaged, hostile, jpeg, others, png, raw, said, tiff, written
from tests.corpus.making import (
    HEIGHT,
    INDEXED,
    WIDTH,
    Case,
    heif,
    oriented,
    picture,
    png_bomb,
    png_chunk,
    saved,
)
from tests.corpus.raw import dng

__all__ = [
    "HEIGHT",
    "INDEXED",
    "WIDTH",
    "Case",
    "cases",
    "dng",
    "heif",
    "oriented",
    "picture",
    "png_bomb",
    "png_chunk",
    "saved",
]


def cases() -> Iterator[Case]:
    """All of them."""
    for kind in (jpeg, png, others, tiff, raw, said, written, damaged, hostile):
        yield from kind.cases()
