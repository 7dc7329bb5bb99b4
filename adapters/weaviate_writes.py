"""How `adapters.weaviate_index` writes and deletes; errors of the client pass as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.collections import CollectionAsync
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from adapters.errors import Unavailable
from adapters.naming import object_id
from adapters.ports import Collection, ImageRecord
from adapters.weaviate_schema import looks_temporary, stored_properties

DELETED_AT_ONCE: Final = 1000

Objects = CollectionAsync[Any, Any]


async def upsert(
    objects: Objects, collection: Collection, records: Sequence[ImageRecord]
) -> Mapping[str, str]:
    """See `ImageIndex.upsert`."""
    # Weaviate fixes a collection's dimension at the first vector, whatever model made it.
    refused = {
        record.image_id: f"the vector has {len(record.vector)} numbers, not {collection.dimension}"
        for record in records
        if len(record.vector) != collection.dimension
    }
    fitting = [record for record in records if record.image_id not in refused]
    if not fitting:
        return refused
    try:
        written = await objects.data.insert_many(
            [
                DataObject(
                    uuid=object_id(record.image_id),
                    properties=stored_properties(record),
                    vector=[float(number) for number in record.vector],
                )
                for record in fitting
            ]
        )
    except WeaviateInsertManyAllFailedError as error:
        # Says so only when every object failed; a server that is going down looks alike.
        if len(fitting) == 1 and not looks_temporary(str(error)):
            return refused | {fitting[0].image_id: str(error)}
        raise Unavailable(f"write to {collection.name}: {error}") from error
    for position, problem in written.errors.items():
        if looks_temporary(problem.message):
            raise Unavailable(f"write to {collection.name}: {problem.message}")
        refused[fitting[position].image_id] = problem.message
    return refused


async def delete(objects: Objects, collection: Collection, image_ids: Sequence[str]) -> None:
    """See `ImageIndex.delete`."""
    ids = [object_id(image_id) for image_id in image_ids]
    for start in range(0, len(ids), DELETED_AT_ONCE):
        done = await objects.data.delete_many(
            where=Filter.by_id().contains_any(ids[start : start + DELETED_AT_ONCE])
        )
        if done.failed:
            raise Unavailable(f"{collection.name}: {done.failed} deletions failed")
