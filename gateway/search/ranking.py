"""The order in which a search's pages go through the collection.

The index is approximate: a search for 1,000 may find, among its best 100, one that a search for 100
missed. Pages cut from searches of growing limits would therefore repeat and skip pictures. So the
order is defined in tiers, each a search with a fixed limit:

    R = S(100), then S(1,000) without S(100), then S(10,000) without both

where S(k) is the answer to a search for k. It never changes while the collection does not, costs
the first pages little, and gives every picture once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from adapters.index.port import MAX_RESULTS, Match

TIERS: Final = (100, 1_000, MAX_RESULTS)
COLLAPSING_TIERS: Final = (100, 1_000)
"""Near-duplicates are collapsed among this many: comparing each with each grows by the square."""

Kept = TypeVar("Kept")
Searching = Callable[[int], Awaitable[Sequence[Match]]]
Cleaning = Callable[[Sequence[Match]], Awaitable[list[Kept]]]


async def ranked(
    search: Searching, clean: Cleaning[Kept], *, needed: int, tiers: Sequence[int] = TIERS
) -> list[Kept]:
    """The order's beginning, of at least `needed` matches if there are as many.

    `clean` takes the order's beginning and leaves out what the question does not want; what it
    leaves of a longer beginning must start with what it leaves of a shorter one.
    """
    order: list[Match] = []
    seen: set[str] = set()
    cleaned: list[Kept] = []
    for tier in tiers:
        found = await search(tier)
        order += [match for match in found if match.image_id not in seen]
        seen.update(match.image_id for match in found)
        cleaned = await clean(order)
        if len(cleaned) >= needed or len(found) < tier:
            break
    return cleaned
