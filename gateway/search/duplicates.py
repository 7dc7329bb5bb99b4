"""Groups of duplicate images: of equal content, or of similar vectors.

A request scrolls through the collection in the order of object ids, starting at its cursor, and
stops after `limit` groups or after a fixed number of images, so its work is bounded however large
the collection is. A page may therefore hold few groups, or none, and still have a next one.

Each group is returned once, and no pair is lost. Exact: a group is returned when the scroll reaches
its first member. Near (two images are near if their cosine is at least `min_score`): when the
scroll reaches x, the group is x with all later images near x, unless an earlier image near x is
near all of these as well, as its group contains x and them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from adapters.index.port import Collection, ImageIndex, Match, StoredImage
from adapters.naming import object_id
from gateway.auth.cursors import Cursors, fingerprint

Kind = Literal["exact", "near"]

EXACT_STEP: Final = 500
EXACT_STEPS: Final = 20
NEAR_STEP: Final = 64
NEAR_STEPS: Final = 4
NEIGHBOURS: Final = 50
"""Maximum number of near-duplicates that are searched for per image."""
CONCURRENT_SEARCHES: Final = 8


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A member of a group; `score` is its cosine with the first member, 1 for equal content."""

    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class DuplicatesPage:
    """Groups of two or more images, how many were examined, and the cursor of the next page."""

    collection: Collection
    groups: list[list[Duplicate]]
    examined: int
    next_cursor: str | None


class Duplicates:
    """Finds groups of duplicates in a bounded part of the collection at a time."""

    def __init__(self, index: ImageIndex, cursors: Cursors, *, near_score: float) -> None:
        """`near_score` is the cosine from which images are near, unless the request sets one."""
        self._index = index
        self._cursors = cursors
        self._near_score = near_score
        self._slots = asyncio.Semaphore(CONCURRENT_SEARCHES)

    async def page(
        self,
        collection: Collection,
        kind: Kind,
        *,
        limit: int,
        min_score: float | None = None,
        cursor: str | None = None,
    ) -> DuplicatesPage:
        """The next groups after `cursor`.

        Raises:
            InvalidField: the cursor does not belong to this request.
            Unavailable: the index does not answer.
        """
        least = self._near_score if min_score is None else min_score
        question = fingerprint("duplicates", collection.name, kind, least)
        after = self._position(cursor, question)
        step, steps = (EXACT_STEP, EXACT_STEPS) if kind == "exact" else (NEAR_STEP, NEAR_STEPS)
        groups: list[list[Duplicate]] = []
        examined = 0
        for _ in range(steps):
            images = await self._index.scroll(collection, after, step)
            if kind == "exact":
                found = await self._equal(collection, images)
            else:
                found = await self._near(collection, images, least)
            for image, group in zip(images, found, strict=True):
                after = image.image_id
                examined += 1
                if len(group) > 1:
                    groups.append(group)
                    if len(groups) == limit:
                        return self._page(collection, groups, examined, question, after)
            if len(images) < step:
                return DuplicatesPage(collection, groups, examined, None)
        return self._page(collection, groups, examined, question, after)

    def _page(
        self,
        collection: Collection,
        groups: list[list[Duplicate]],
        examined: int,
        question: str,
        after: str | None,
    ) -> DuplicatesPage:
        cursor = None if after is None else self._cursors.sign(question, after)
        return DuplicatesPage(collection, groups, examined, cursor)

    def _position(self, cursor: str | None, question: str) -> str | None:
        if cursor is None:
            return None
        return str(self._cursors.check(cursor, question))

    async def _equal(
        self, collection: Collection, images: Sequence[StoredImage]
    ) -> list[list[Duplicate]]:
        """For each image the group whose first member it is; empty if it is not the first."""
        held = await self._index.ids_by_sha256(collection, [image.sha256 for image in images])
        groups = []
        for image in images:
            members = held.get(image.sha256, ())
            first = bool(members) and members[0] == image.image_id
            groups.append([Duplicate(name, 1.0) for name in members] if first else [])
        return groups

    async def _near(
        self, collection: Collection, images: Sequence[StoredImage], least: float
    ) -> list[list[Duplicate]]:
        async def neighbours(image: StoredImage) -> Sequence[Match]:
            async with self._slots:
                return await self._index.search(
                    collection, image.vector, NEIGHBOURS + 1, with_vectors=True
                )

        found = await asyncio.gather(*(neighbours(image) for image in images))
        return [
            _group(image, [match for match in matches if match.score >= least], least)
            for image, matches in zip(images, found, strict=True)
        ]


def _group(image: StoredImage, near: Sequence[Match], least: float) -> list[Duplicate]:
    """The group whose first member this image is; empty if an earlier group contains it."""
    own = object_id(image.image_id)
    earlier = [match for match in near if object_id(match.image_id) < own]
    later = [match for match in near if object_id(match.image_id) > own]
    if not later:
        return []
    if earlier:
        alike = np.array([m.vector for m in earlier]) @ np.array([m.vector for m in later]).T
        if bool((alike >= least).all(axis=1).any()):
            return []
    return [
        Duplicate(image.image_id, 1.0),
        *(Duplicate(match.image_id, match.score) for match in later),
    ]
