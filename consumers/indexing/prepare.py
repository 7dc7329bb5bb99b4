"""Turn records into writes: deduplicate, reuse known vectors, infer the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.index.facts import FACTS_VERSION
from adapters.index.port import Collection, ImageIndex, KnownVector
from adapters.log.port import EventLog, LogRecord
from consumers.indexing.absent import AbsentImages
from consumers.indexing.batch import ImageToIndex, IndexingCounters, PreparedBatch, reuse_vector
from consumers.indexing.failures import Poison, RetryPolicy
from consumers.indexing.inference import Inference
from consumers.indexing.settings import IndexingSettings
from schemas.codec import InvalidEvent, decode_image_change, decode_key
from schemas.events import ImageAdded, ImageRemoved


class Preparer:
    """Prepares batches for one collection; writes nothing."""

    def __init__(
        self,
        embedder: Embedder,
        index: ImageIndex,
        log: EventLog,
        collection: Collection,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
        counters: IndexingCounters,
    ) -> None:
        self._index = index
        self._collection = collection
        self._counters = counters
        self._retry = RetryPolicy(
            settings.retry_initial, settings.retry_maximum, settings.max_attempts
        )
        self._inference = Inference(embedder, spec, settings, pool, counters)
        self._absent = AbsentImages(settings, log)

    @property
    def slots_taken(self) -> int:
        """Slots held by images in preparation; 0 when nothing is in preparation."""
        return self._inference.slots_taken

    def close(self) -> None:
        """Stop the decoding processes and pending checks."""
        self._inference.close()
        self._absent.close()

    async def prepare(self, records: Sequence[LogRecord]) -> PreparedBatch:
        """Do everything but the writes. Waits while a server or the images' storage is away."""
        prepared = PreparedBatch(records)
        additions = self._sort(records, prepared)
        known = await self._known([each.event.sha256 for each in additions])
        unknown: list[ImageToIndex] = []
        for each in additions:
            found = known.get(each.event.sha256)
            if found is not None and found.facts_version >= FACTS_VERSION:
                prepared.additions.append(reuse_vector(each, found))
            else:
                unknown.append(each._replace(known=found))
        absent = await self._inference.infer(unknown, prepared)
        self._absent.found(len(unknown) - len(absent))
        await self._absent.settle(absent, prepared, self._inference.infer)
        return prepared

    def _sort(self, records: Sequence[LogRecord], prepared: PreparedBatch) -> list[ImageToIndex]:
        """Keep only the last event of each key: it supersedes the earlier ones."""
        last: dict[str, tuple[LogRecord, ImageAdded | ImageRemoved]] = {}
        for record in records:
            try:
                change = decode_image_change(record.key, record.value)
            except InvalidEvent as error:
                prepared.poison.append(_unreadable(record, error))
                continue
            last.pop(change.image_id, None)
            last[change.image_id] = (record, change)
        additions: list[ImageToIndex] = []
        for record, change in last.values():
            if isinstance(change, ImageAdded):
                additions.append(ImageToIndex(record, change))
            else:
                prepared.removals.append((record, change))
        return additions

    async def _known(self, hashes: Sequence[str]) -> dict[str, KnownVector]:
        recent = {sha256: self._inference.recent(sha256) for sha256 in hashes}
        known = {sha256: vector for sha256, vector in recent.items() if vector is not None}
        missing = [sha256 for sha256 in hashes if sha256 not in known]
        if missing:
            known.update(
                await self._retry.until_available(
                    lambda: self._index.known_vectors(self._collection, missing),
                    "look up known vectors",
                )
            )
        self._counters.looked_up += len(hashes)
        return known


def _unreadable(record: LogRecord, error: InvalidEvent) -> Poison:
    try:
        image_id = decode_key(record.key)
    except InvalidEvent:
        image_id = ""
    return Poison(record, image_id, type(error).__name__, str(error), is_newest=False)
