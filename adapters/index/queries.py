"""Weaviate's queries: searches, scrolling and look-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from weaviate.classes.query import Filter, MetadataQuery, Sort
from weaviate.collections import CollectionAsync

from adapters.errors import Unavailable
from adapters.index.filters import Condition, conditions
from adapters.index.port import (
    MAX_RESULTS,
    ImageFilter,
    KnownVector,
    ListedImage,
    Match,
    StoredImage,
)
from adapters.index.schema import KNOWN_PROPERTIES, known_vector, typed
from adapters.index.storable import EARLIEST
from adapters.naming import object_id

Objects = CollectionAsync[Any, Any]

PAUSES: Final = (0.0, 0.01, 0.02, 0.04, 0.08)
"""Seconds before each attempt of a query, which is repeated while its answer lacks images."""
KNOWN_VECTORS_LIMIT: Final = 1000
"""Limit of one look-up by content hash; with more copies, some vectors are inferred again."""


async def search(
    objects: Objects,
    vector: Sequence[float],
    limit: int,
    *,
    where: ImageFilter,
    details: Sequence[str],
    with_vectors: bool,
) -> list[Match]:
    """See `ImageIndex.search`."""
    numbers, filters = [float(number) for number in vector], conditions(where)

    def query() -> Awaitable[Any]:
        return objects.query.near_vector(
            near_vector=numbers,
            limit=limit,
            filters=filters,
            return_metadata=MetadataQuery(distance=True),
            return_properties=["image_id", *details],
            include_vector=with_vectors,
        )

    matches = [
        Match(
            image_id=str(item.properties["image_id"]),
            # Cosine distance is 1 - cosine similarity.
            score=1.0 - _distance(item),
            details={name: typed(name, item.properties.get(name)) for name in details},
            vector=_vector(item.vector) if with_vectors else (),
        )
        for item in await _complete(objects, query, limit, filters)
    ]
    return sorted(matches, key=lambda match: (-match.score, match.image_id))[:limit]


async def _complete(
    objects: Objects,
    query: Callable[[], Awaitable[Any]],
    limit: int,
    filters: Condition | None,
) -> list[Any]:
    """The objects that `query` returns: `limit` of them, or all that pass its filters.

    While an object is overwritten, Weaviate may find its old version and then drop it from the
    answer. So a query whose answer is too short is repeated, and the answers are merged.
    """
    found: dict[object, Any] = {}
    for pause in PAUSES:
        if pause:
            await asyncio.sleep(pause)
        found |= {each.uuid: each for each in (await query()).objects}
        if len(found) >= limit:
            break
        # With filters this takes a time that grows with the number of images that pass them, which
        # is below the limit here, but for a few.
        counted = await objects.aggregate.over_all(filters=filters, total_count=True)
        if len(found) >= (counted.total_count or 0):
            break
    return list(found.values())


async def newest(
    objects: Objects,
    limit: int,
    *,
    before: tuple[datetime, str] | None,
    where: ImageFilter,
    details: Sequence[str],
) -> list[ListedImage]:
    """See `ImageIndex.newest`.

    Weaviate reads such an order from the property's index, and orders images of one instant by
    their age in the database. So those at the ends of the page are read again, all of an instant.
    """

    async def images(condition: Condition, limit: int) -> list[ListedImage]:
        narrowed = conditions(where)
        filters = condition if narrowed is None else Filter.all_of([narrowed, condition])

        def query() -> Awaitable[Any]:
            return objects.query.fetch_objects(
                limit=limit,
                filters=filters,
                sort=Sort.by_property("added_at", ascending=False),
                return_properties=list({"image_id", "added_at", *details}),
            )

        found = [_listed(item, details) for item in await _complete(objects, query, limit, filters)]
        return _ordered(found)

    added_at = Filter.by_property("added_at")
    if before is None:
        found = await images(added_at.greater_or_equal(EARLIEST), limit)
    else:
        instant, image_id = before
        same, found = await asyncio.gather(
            images(added_at.equal(instant), MAX_RESULTS),
            images(added_at.less_than(instant), limit),
        )
        found = [image for image in same if image.image_id > image_id] + found
    if len(found) >= limit > 0:
        last = found[limit - 1].added_at
        # Others of this instant, which precede the last one by their id, may be missing.
        if before is None or last != before[0]:
            same = await images(added_at.equal(last), MAX_RESULTS)
            found = [image for image in found if image.added_at > last] + same
    return found[:limit]


def _ordered(images: Sequence[ListedImage]) -> list[ListedImage]:
    by_id = sorted(images, key=lambda image: image.image_id)
    return sorted(by_id, key=lambda image: image.added_at, reverse=True)


def _listed(item: Any, details: Sequence[str]) -> ListedImage:
    return ListedImage(
        image_id=str(item.properties["image_id"]),
        added_at=cast(datetime, typed("added_at", item.properties["added_at"])),
        details={name: typed(name, item.properties.get(name)) for name in details},
    )


async def scroll(
    objects: Objects, after: str | None, limit: int, *, with_vectors: bool
) -> list[StoredImage]:
    """See `ImageIndex.scroll`."""
    page = await objects.query.fetch_objects(
        limit=limit,
        after=None if after is None else object_id(after),
        return_properties=["image_id", "sha256"],
        include_vector=with_vectors,
    )
    return [
        StoredImage(
            image_id=str(item.properties["image_id"]),
            sha256=str(item.properties["sha256"]),
            vector=_vector(item.vector) if with_vectors else (),
        )
        for item in page.objects
    ]


async def known_vectors(objects: Objects, sha256s: Sequence[str]) -> dict[str, KnownVector]:
    """See `ImageIndex.known_vectors`."""
    found = await objects.query.fetch_objects(
        filters=Filter.by_property("sha256").contains_any(list(dict.fromkeys(sha256s))),
        include_vector=True,
        return_properties=list(KNOWN_PROPERTIES),
        limit=KNOWN_VECTORS_LIMIT,
    )
    known: dict[str, KnownVector] = {}
    for item in found.objects:
        if (found_one := known_vector(item.properties, _vector(item.vector))) is None:
            continue
        sha256 = str(item.properties["sha256"])
        before = known.get(sha256)
        if before is None or before.facts_version < found_one.facts_version:
            known[sha256] = found_one
    return known


async def ids_by_sha256(objects: Objects, sha256s: Sequence[str]) -> dict[str, list[str]]:
    """See `ImageIndex.ids_by_sha256`."""
    found = await objects.query.fetch_objects(
        filters=Filter.by_property("sha256").contains_any(list(dict.fromkeys(sha256s))),
        return_properties=["image_id", "sha256"],
        limit=MAX_RESULTS,
    )
    held: dict[str, list[str]] = {}
    for item in sorted(found.objects, key=lambda item: item.uuid):
        held.setdefault(str(item.properties["sha256"]), []).append(str(item.properties["image_id"]))
    return held


async def hashes(objects: Objects, image_ids: Sequence[str]) -> dict[str, str]:
    """See `ImageIndex.hashes`."""
    found = await objects.query.fetch_objects_by_ids(
        [object_id(image_id) for image_id in image_ids],
        return_properties=["image_id", "sha256"],
        limit=max(1, len(image_ids)),
    )
    return {
        str(item.properties["image_id"]): str(item.properties["sha256"]) for item in found.objects
    }


def _distance(item: Any) -> float:
    distance: float | None = item.metadata.distance
    if distance is None:
        # A missing distance must not count as 0, which would be the best match.
        raise Unavailable("Weaviate's answer lacks the distance")
    return distance


def _vector(vectors: Mapping[str, Any]) -> list[float]:
    return cast(list[float], vectors.get("default") or [])
