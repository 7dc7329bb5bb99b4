"""How `adapters.index.weaviate` writes and deletes; errors of the client are not translated.

Weaviate stores an object first and adds its vector to the vector index afterwards, so a `kill -9`
may leave an object that no search finds. Two measures prevent that (they follow from the sources of
1.39; `tests/integration/test_weaviate_killed.py` shows the need).

- A batch is acknowledged when its vectors are in the vector index, but the index's log is flushed
  before that, so vectors are durable only after the next batch. The last object is therefore sent
  again at once: as it has not changed, this only flushes the log.
- An object that is written again with the same vector counts as unchanged, and the vector index is
  not updated (weaviate/weaviate, issues 3948 and 3949), even if a kill kept the vector out of it.
  So no two writes use the same vector: each is scaled by a random factor within a millionth of one,
  which does not affect cosine similarity. When the server goes away, the client itself sends the
  batch again, with the same vectors. Such a write counts as failed, and the caller repeats it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.collections import CollectionAsync
from weaviate.exceptions import WeaviateBatchError, WeaviateInsertManyAllFailedError

from adapters.errors import Unavailable
from adapters.index.port import Collection, ImageRecord
from adapters.index.schema import looks_temporary, looks_too_large, stored_properties
from adapters.naming import object_id

DELETE_BATCH: Final = 1000
STRETCH: Final = 1e-6
"""By how much a vector's length may differ from one; float32 has steps of 1.2e-7."""

Objects = CollectionAsync[Any, Any]


class _RepetitionCounter(logging.Filter):
    """Counts the client's own repetitions, which only its log reveals."""

    seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.seen += record.module == "retry"
        return True


_repetitions = _RepetitionCounter()
_client_log = logging.getLogger("weaviate-client")
_client_log.setLevel(logging.INFO)  # above this level the repetitions are not logged
_client_log.addFilter(_repetitions)


async def upsert(
    objects: Objects, collection: Collection, records: Sequence[ImageRecord]
) -> Mapping[str, str]:
    """See `ImageIndex.upsert`."""
    # Weaviate takes the dimension of a collection from its first vector, so check it here.
    refused = {
        record.image_id: f"the vector has {len(record.vector)} numbers, not {collection.dimension}"
        for record in records
        if len(record.vector) != collection.dimension
    }
    fitting = [record for record in records if record.image_id not in refused]
    if not fitting:
        return refused
    return refused | await _insert(objects, collection, fitting)


async def _insert(
    objects: Objects, collection: Collection, records: Sequence[ImageRecord]
) -> dict[str, str]:
    """Write these, in halves if they are too large; a single one that is too large is refused."""
    try:
        return await _insert_at_once(objects, collection, records)
    except WeaviateBatchError as error:
        if not looks_too_large(str(error)):
            raise
    if len(records) == 1:
        return {records[0].image_id: "it is larger than the requests that Weaviate accepts"}
    half = len(records) // 2
    refused = await _insert(objects, collection, records[:half])
    return refused | await _insert(objects, collection, records[half:])


async def _insert_at_once(
    objects: Objects, collection: Collection, records: Sequence[ImageRecord]
) -> dict[str, str]:
    repetitions = _repetitions.seen
    batch = [_object(record) for record in records]
    try:
        written = await objects.data.insert_many(batch)
    except WeaviateInsertManyAllFailedError as error:
        # Raised when every object failed, which also happens while the server shuts down.
        if len(records) == 1 and not looks_temporary(str(error)):
            return {records[0].image_id: str(error)}
        raise Unavailable(f"write to {collection.name}: {error}") from error
    refused = {}
    for position, problem in written.errors.items():
        if looks_temporary(problem.message):
            raise Unavailable(f"write to {collection.name}: {problem.message}")
        refused[records[position].image_id] = problem.message
    if written.uuids:
        await objects.data.insert_many([batch[max(written.uuids)]])
    if _repetitions.seen != repetitions:
        raise Unavailable(f"write to {collection.name}: the connection was lost meanwhile")
    return refused


def _object(record: ImageRecord) -> DataObject[Any, Any]:
    vector = np.asarray(record.vector, np.float64)
    length = 1 + random.uniform(-STRETCH, STRETCH)  # noqa: S311  # no secret
    return DataObject(
        uuid=object_id(record.image_id),
        properties=stored_properties(record),
        vector=(vector * (length / np.linalg.norm(vector))).astype(np.float32).tolist(),
    )


async def delete(objects: Objects, collection: Collection, image_ids: Sequence[str]) -> None:
    """See `ImageIndex.delete`."""
    ids = [object_id(image_id) for image_id in image_ids]
    for start in range(0, len(ids), DELETE_BATCH):
        done = await objects.data.delete_many(
            where=Filter.by_id().contains_any(ids[start : start + DELETE_BATCH])
        )
        if done.failed:
            raise Unavailable(f"{collection.name}: {done.failed} deletions failed")
