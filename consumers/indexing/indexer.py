"""Index batches in order: the next one is prepared while the last one is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from adapters.index.port import Collection, ImageIndex
from adapters.log.dead_letter import VALUE_BYTES, printable
from adapters.log.dead_letter_reader import VANISHED
from adapters.log.port import EventLog, LogRecord, Message
from consumers.indexing.batch import Addition, IndexingCounters, PreparedBatch
from consumers.indexing.failures import Poison, PoisonLimit, RetryPolicy
from consumers.indexing.prepare import Preparer
from consumers.indexing.settings import IndexingSettings
from schemas.events import ImageIndexed, ImageRemoved, IndexAction
from schemas.topics import IMAGES, IMAGES_DLQ, IMAGES_INDEXED, Topic

logger = logging.getLogger(__name__)

VALUE_LIMITS: Final = (VALUE_BYTES, 16 * 1024, 0)
"""Bytes of a record that its dead letter keeps: the next smaller limit is tried whenever the broker
refuses the message."""


class Indexer:
    """Applies records of `images` to one collection. All effects are idempotent.

    `prepare` and `apply` may overlap for consecutive batches; `apply` must be called in log order,
    so that a removal is never applied before an earlier addition of the same image.
    """

    def __init__(
        self,
        embedder: Embedder,
        index: ImageIndex,
        log: EventLog,
        collection: Collection,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.counters = IndexingCounters()
        self._index = index
        self._log = log
        self._collection = collection
        self._retry = RetryPolicy(
            settings.retry_initial, settings.retry_maximum, settings.max_attempts
        )
        self._limit = PoisonLimit(settings.poison_share, settings.poison_window)
        self._preparer = Preparer(
            embedder, index, log, collection, spec, settings, pool, self.counters
        )

    @property
    def slots_taken(self) -> int:
        """See `Preparer.slots_taken`."""
        return self._preparer.slots_taken

    def close(self) -> None:
        """Stop the decoding processes and pending checks."""
        self._preparer.close()

    async def prepare(self, records: Sequence[LogRecord]) -> PreparedBatch:
        """Read, decode and embed; see `Preparer.prepare`."""
        return await self._preparer.prepare(records)

    async def apply(self, prepared: PreparedBatch) -> None:
        """Write a prepared batch. When this returns, all effects are durable: commit the offsets.

        Raises:
            TooMuchPoison: most of the recent records are bad; do not commit.
        """
        started = time.perf_counter()
        # A vanished image is not a bad record; `AbsentImages` has its own limit for those.
        bad = sum(poison.error_class != VANISHED for poison in prepared.poison)
        self._limit.note(good=len(prepared.records) - len(prepared.poison), bad=bad)
        # An image whose newest content is bad must not be found by its former content.
        gone = [removed.image_id for _, removed in prepared.removals]
        gone += [poison.image_id for poison in prepared.poison if poison.is_newest]
        # Order matters only within a key, and a batch has one change per key.
        await self._delete(gone)
        written, refused = await self._upsert(prepared.additions)
        if refused:
            self._limit.note(good=0, bad=len(refused))
            await self._delete([poison.image_id for poison in refused])
        write_ms = (time.perf_counter() - started) * 1e3 / max(1, len(prepared.additions))
        poison = [*prepared.poison, *refused]
        await self._dead_letter(poison)
        await self._announce(written, prepared.removals, write_ms)
        self._count(prepared, written, poison)

    async def _delete(self, image_ids: Sequence[str]) -> None:
        await self._retry.until_available(
            lambda: self._index.delete(self._collection, image_ids), "delete pictures"
        )

    async def _upsert(self, additions: Sequence[Addition]) -> tuple[list[Addition], list[Poison]]:
        if not additions:
            return [], []
        reasons = await self._retry.until_available(
            lambda: self._index.upsert(
                self._collection, [addition.image for addition in additions]
            ),
            "write vectors",
        )
        written = [a for a in additions if a.event.image_id not in reasons]
        refused = [
            Poison(a.record, a.event.image_id, "Refused", reasons[a.event.image_id])
            for a in additions
            if a.event.image_id in reasons
        ]
        return written, refused

    async def _dead_letter(self, poison: Sequence[Poison]) -> None:
        if not poison:
            return
        for each in poison:
            logger.warning("dead letter: %.200r: %s", each.image_id, printable(each.reason, 1000))
        try:
            await self._publish(IMAGES_DLQ, [self._letter(each) for each in poison])
        except Rejected as error:
            logger.warning("dead letters are written one by one: %s", error)
            for each in poison:
                await self._write_letter(each)

    async def _write_letter(self, poison: Poison) -> None:
        """Publish it with as much of the record's value as the broker accepts: without a dead
        letter the offset could never be committed."""
        *larger, smallest = VALUE_LIMITS
        for limit in larger:
            try:
                await self._publish(IMAGES_DLQ, [self._letter(poison, limit)])
            except Rejected:
                continue
            return
        await self._publish(IMAGES_DLQ, [self._letter(poison, smallest)])

    def _letter(self, poison: Poison, value_limit: int = VALUE_BYTES) -> Message:
        return poison.message(IMAGES.name, self._collection.model_name, value_limit)

    async def _publish(self, topic: Topic, messages: Sequence[Message]) -> None:
        await self._retry.until_available(
            lambda: self._log.publish(topic, messages), f"publish to {topic.name}"
        )

    async def _announce(
        self,
        written: Sequence[Addition],
        removals: Sequence[tuple[LogRecord, ImageRemoved]],
        write_ms: float,
    ) -> None:
        model, collection = self._collection.model_name, self._collection.name
        events = [
            ImageIndexed(
                image_id=a.event.image_id,
                action=IndexAction.UPSERTED,
                sha256=a.event.sha256,
                model_name=model,
                collection=collection,
                source_partition=a.record.position.partition,
                source_offset=a.record.position.offset,
                added_at=a.event.added_at,
                vector_reused=a.vector_reused,
                timings_ms=a.timings.model_copy(update={"write": write_ms}),
            )
            for a in written
        ]
        events += [
            ImageIndexed(
                image_id=removed.image_id,
                action=IndexAction.REMOVED,
                model_name=model,
                collection=collection,
                source_partition=record.position.partition,
                source_offset=record.position.offset,
            )
            for record, removed in removals
        ]
        if not events:
            return
        messages = [Message(key=event.image_id, event=event) for event in events]
        try:
            await self._publish(IMAGES_INDEXED, messages)
        except Rejected:
            # The index is correct: an announcement that cannot be published must not stop indexing.
            for message in messages:
                try:
                    await self._publish(IMAGES_INDEXED, [message])
                except Rejected as error:
                    logger.error(
                        "%r was indexed, but its event was not published: %s", message.key, error
                    )

    def _count(
        self, prepared: PreparedBatch, written: Sequence[Addition], poison: Sequence[Poison]
    ) -> None:
        counters = self.counters
        counters.received += len(prepared.records)
        counters.indexed += len(written)
        counters.removed += len(prepared.removals)
        counters.dead_lettered += len(poison)
        counters.superseded += prepared.superseded
        counters.vectors_reused += sum(addition.vector_reused for addition in written)
