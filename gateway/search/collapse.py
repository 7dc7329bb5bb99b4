"""Grouping near-duplicates in an answer under the best of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapters.index.port import Match


@dataclass(frozen=True, slots=True)
class CollapsedMatch:
    """A match, and the ids of the near-duplicates collapsed into it, best first."""

    match: Match
    duplicates: tuple[str, ...] = ()


async def collapse(matches: Sequence[Match], least: float) -> list[CollapsedMatch]:
    """The matches, each near-duplicate of a better match collapsed into that one.

    Two images are near-duplicates if the cosine of their vectors is at least `least`. The matches
    have vectors and are sorted, best first; whether one is collapsed depends only on better ones.
    """
    return await asyncio.to_thread(_collapse, matches, least)


def _collapse(matches: Sequence[Match], least: float) -> list[CollapsedMatch]:
    if not matches:
        return []
    vectors = np.array([match.vector for match in matches], dtype=np.float32)
    alike = vectors @ vectors.T
    kept: list[int] = []
    collapsed: dict[int, list[str]] = {}
    for number, match in enumerate(matches):
        nearest = kept[int(np.argmax(alike[kept, number]))] if kept else None
        if nearest is not None and alike[nearest, number] >= least:
            collapsed[nearest].append(match.image_id)
        else:
            kept.append(number)
            collapsed[number] = []
    return [CollapsedMatch(matches[number], tuple(collapsed[number])) for number in kept]
