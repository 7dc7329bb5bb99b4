"""All odd and hostile pictures of `tests.corpus`, by the names that other tests know."""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus import (
    camera_raw,
    damaged,
    hostile,
    jpeg,
    metadata_files,
    other_formats,
    png,
    rare_encodings,
    tiff,
)
from tests.corpus.builders import (
    HEIGHT,
    INDEXED,
    WIDTH,
    Case,
    gradient,
    heif,
    oriented,
    png_bomb,
    png_chunk,
    saved,
)
from tests.corpus.camera_raw import dng

__all__ = [
    "HEIGHT",
    "INDEXED",
    "WIDTH",
    "Case",
    "cases",
    "dng",
    "gradient",
    "heif",
    "oriented",
    "png_bomb",
    "png_chunk",
    "saved",
]


def cases() -> Iterator[Case]:
    """All cases of the corpus."""
    for kind in (
        jpeg,
        png,
        other_formats,
        tiff,
        camera_raw,
        metadata_files,
        rare_encodings,
        damaged,
        hostile,
    ):
        yield from kind.cases()
