"""Weaviate's queries: searches, scrolling and look-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from weaviate.classes.query import Filter, MetadataQuery
from weaviate.collections import CollectionAsync

from adapters.errors import Unavailable
from adapters.index.filters import conditions
from adapters.index.port import MAX_RESULTS, ImageFilter, Match, StoredImage
from adapters.index.schema import typed
from adapters.naming import object_id

Objects = CollectionAsync[Any, Any]

PAUSES: Final = (0.0, 0.01, 0.02, 0.04, 0.08)
"""Seconds before each attempt of a search, which is repeated while its answer lacks images."""


async def search(
    objects: Objects,
    vector: Sequence[float],
    limit: int,
    *,
    where: ImageFilter,
    details: Sequence[str],
    with_vectors: bool,
) -> list[Match]:
    """See `ImageIndex.search`.

    While an object is overwritten, Weaviate may find its old version and then drop it from the
    answer. So a search whose answer is too short is repeated, and the answers are merged.
    """
    numbers, filters = [float(number) for number in vector], conditions(where)
    found: dict[object, Any] = {}
    for pause in PAUSES:
        if pause:
            await asyncio.sleep(pause)
        answer = await objects.query.near_vector(
            near_vector=numbers,
            limit=limit,
            filters=filters,
            return_metadata=MetadataQuery(distance=True),
            return_properties=["image_id", *details],
            include_vector=with_vectors,
        )
        found |= {each.uuid: each for each in answer.objects}
        if len(found) >= limit:
            break
        counted = await objects.aggregate.over_all(filters=filters, total_count=True)
        if len(found) >= (counted.total_count or 0):
            break
    matches = [
        Match(
            image_id=str(item.properties["image_id"]),
            # Cosine distance is 1 - cosine similarity.
            score=1.0 - _distance(item),
            details={name: typed(name, item.properties.get(name)) for name in details},
            vector=_vector(item.vector) if with_vectors else (),
        )
        for item in found.values()
    ]
    return sorted(matches, key=lambda match: (-match.score, match.image_id))[:limit]


async def scroll(objects: Objects, after: str | None, limit: int) -> list[StoredImage]:
    """See `ImageIndex.scroll`."""
    page = await objects.query.fetch_objects(
        limit=limit,
        after=None if after is None else object_id(after),
        return_properties=["image_id", "sha256"],
        include_vector=True,
    )
    return [
        StoredImage(
            image_id=str(item.properties["image_id"]),
            sha256=str(item.properties["sha256"]),
            vector=_vector(item.vector),
        )
        for item in page.objects
    ]


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
