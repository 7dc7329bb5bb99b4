"""The order of matches over all pages of a search.

The index is approximate: a search for 1,000 may find, among its best 100, one that a search for 100
missed. Pages cut from searches of growing limits would therefore repeat and skip images. So the
order is defined in tiers, each a search with a fixed limit:

    R = S(100), then S(1,000) without S(100), then S(10,000) without both

where S(k) is the answer to a search for k. It does not change while the collection does not, the
first pages are cheap, and every image occurs once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from adapters.index.port import MAX_RESULTS, Match

TIERS: Final = (100, 1_000, MAX_RESULTS)
COLLAPSING_TIERS: Final = (100, 1_000)
"""Tiers with near-duplicates collapsed, which takes a number of comparisons that is quadratic."""

Cleaned = TypeVar("Cleaned")
Searching = Callable[[int], Awaitable[Sequence[Match]]]
Cleaning = Callable[[Sequence[Match]], Awaitable[list[Cleaned]]]


async def rank(
    search: Searching, clean: Cleaning[Cleaned], *, needed: int, tiers: Sequence[int] = TIERS
) -> list[Cleaned]:
    """The beginning of the order: at least `needed` matches, if there are as many.

    `clean` removes the matches that the request excludes. Its result for a longer beginning of
    the order must start with its result for a shorter one.
    """
    order: list[Match] = []
    seen: set[str] = set()
    cleaned: list[Cleaned] = []
    for tier in tiers:
        found = await search(tier)
        order += [match for match in found if match.image_id not in seen]
        seen.update(match.image_id for match in found)
        cleaned = await clean(order)
        if len(cleaned) >= needed or len(found) < tier:
            break
    return cleaned
