"""The work of the group that fills one collection from `images`.

Partitions start at the group's committed offsets, which carry fingerprints (`OffsetFingerprints`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from adapters.log.port import Committed, EventLog, LogRecord, Partition
from adapters.retry import until_available
from consumers.indexing.indexer import Indexer
from consumers.indexing.offset_fingerprints import OffsetFingerprints, StartOffsets
from consumers.indexing.pipeline import IndexingPipeline
from consumers.indexing.settings import IndexingSettings
from consumers.process.consumer_loop import ConsumerLoop
from consumers.process.group_work import GroupSettings
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

SESSION_SECONDS = 6.0
HEARTBEAT_SECONDS = 1.5
REJOIN_SECONDS = 10.0


class IndexingWork:
    """A `GroupWork`: batches of `images` go through a pipeline into the index."""

    _member: ConsumerLoop[IndexingWork]

    def __init__(
        self,
        settings: IndexingSettings,
        indexer: Indexer,
        log: EventLog,
        before_replay: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`before_replay` is awaited when a partition has no committed offset, or one of another
        log: the broker has lost all data, or the end of this log. Nothing is committed before it
        returns, so after a crash it is called again.
        """
        self._before_replay = before_replay
        self._fingerprints = OffsetFingerprints(log)
        self._start_offsets = StartOffsets({}, frozenset())
        self.pipeline = IndexingPipeline(
            indexer,
            self.commit,
            capacity=2 * settings.batch_records,
            broker_is_away=lambda: self._member.broker_is_away(),
        )

    def attach(self, member: ConsumerLoop[IndexingWork]) -> None:
        """See `GroupWork.attach`."""
        self._member = member

    @property
    def failed(self) -> asyncio.Future[None]:
        """See `GroupWork.failed`."""
        return self.pipeline.failed

    def fail(self, error: BaseException) -> None:
        """See `GroupWork.fail`."""
        self.pipeline.fail(error)

    def start(self) -> None:
        """See `GroupWork.start`."""
        self.pipeline.start()

    async def stop(self) -> None:
        """See `GroupWork.stop`."""
        await self.pipeline.stop()

    async def choose_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See `GroupWork.choose_offsets`: the committed offsets, if they belong to this log."""
        numbers = [number for _, number in partitions]

        async def look_up() -> StartOffsets:
            committed = await self._member.committed(partitions)
            return await self._fingerprints.start_offsets(
                {number: each for (_, number), each in committed.items()}, numbers
            )

        self._start_offsets = await until_available(look_up, what="Kafka")
        self._fingerprints.clear()
        return {(IMAGES, number): offset for number, offset in self._start_offsets.offsets.items()}

    async def begin(self) -> None:
        """See `GroupWork.begin`."""
        starts = self._start_offsets
        if starts.outdated:
            logger.info(
                "partitions that an earlier version read are read again: %s",
                sorted(starts.outdated),
            )
        if starts.unknown and self._before_replay is not None:
            await self._before_replay()
        # The next owner then need not replay the partition, and its lag is known.
        first = {number: starts.offsets[number] for number in starts.unknown | starts.outdated}
        if first:
            await until_available(
                lambda: self._member.commit_at_once(self._with_fingerprints(first)), what="Kafka"
            )

    def put(self, records: Mapping[Partition, Sequence[LogRecord]]) -> None:
        """See `GroupWork.put`."""
        self._fingerprints.remember(records.values())
        self.pipeline.put([record for batch in records.values() for record in batch])

    @property
    def is_full(self) -> bool:
        """See `GroupWork.is_full`."""
        return self.pipeline.is_full

    async def wait_for_room(self) -> None:
        """See `GroupWork.wait_for_room`."""
        await self.pipeline.wait_for_room()

    async def give_up(self, seconds: float) -> None:
        """See `GroupWork.give_up`."""
        if not await self.pipeline.drain(seconds):
            logger.warning(
                "%d records in flight are dropped; they will be read again", self.pipeline.in_flight
            )
            await self.pipeline.drop()

    async def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Commit partition -> next offset, with fingerprints.

        Raises:
            Unavailable: the broker cannot commit now.
            RebalanceFailed: the assigned partitions are unknown.
        """
        await self._member.commit(self._with_fingerprints(next_offsets))

    def _with_fingerprints(self, next_offsets: Mapping[int, int]) -> dict[Partition, Committed]:
        fingerprinted = self._fingerprints.with_fingerprints(next_offsets)
        return {(IMAGES, number): each for number, each in fingerprinted.items()}


def indexing_member(
    settings: IndexingSettings,
    indexer: Indexer,
    group_id: str,
    log: EventLog,
    before_replay: Callable[[], Awaitable[object]] | None = None,
) -> ConsumerLoop[IndexingWork]:
    """A member of the group that fills the collection of `indexer`; see `IndexingWork`."""
    work = IndexingWork(settings, indexer, log, before_replay)
    return ConsumerLoop(
        GroupSettings(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=group_id,
            topics=(IMAGES,),
            max_records=settings.batch_records,
            batch_wait=settings.batch_wait,
            max_poll_interval=settings.max_poll_interval,
            session_timeout=SESSION_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            rebalance_timeout=settings.rebalance_grace + REJOIN_SECONDS,
            rebalance_grace=settings.rebalance_grace,
            shutdown_grace=settings.shutdown_grace,
        ),
        work,
        log,
    )
