"""The consumer loop of both groups: one member that polls, pauses, puts batches in, and commits.

FastStream polls and calls `_handle` with each batch. That only puts the batch into the group's work
and returns, so a slow member is never mistaken for a dead one. When the work is full, its
partitions are paused: polling goes on, fetching stops. The work calls `commit` once the effects of
its records are durable.

This is the only file that imports FastStream. Two parts of it are bypassed: its acknowledgement
(`AckPolicy.MANUAL`, never called), which commits the fetch positions instead of what was handled
and swallows errors; and its parser, which fails on foreign headers, so that a batch is skipped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER
from faststream.kafka.message import KafkaMessage as Batch

from adapters.errors import Unavailable
from adapters.log.kafka_errors import kafka_errors
from adapters.log.next_offsets import NextOffsets, commit, committed
from adapters.log.port import Committed, EventLog, Partition
from adapters.log.rebalance import RebalanceFailed, Rebalances
from consumers.process.group_work import GroupSettings, GroupWork
from schemas.topics import BY_NAME

logger = logging.getLogger(__name__)

METADATA_MS: Final = 15_000
"""A topic that is recreated or gets more partitions is noticed within this time."""


WorkT = TypeVar("WorkT", bound=GroupWork)


class ConsumerLoop(Rebalances, Generic[WorkT]):
    """One member of a consumer group."""

    def __init__(self, settings: GroupSettings, work: WorkT, log: EventLog) -> None:
        """`log` is a second connection, to distinguish a broken consumer from a broker outage."""
        super().__init__()
        self.work = work
        self._settings = settings
        self._log = log
        self._consumer: Any = None
        self._next = NextOffsets(keep_headers=settings.keep_headers)
        self._assigned: Sequence[Partition] = ()
        self._chosen = asyncio.Event()
        self._chosen.set()
        self._beginning: asyncio.Task[None] | None = None
        self._paused: set[TopicPartition] = set()
        self._resuming: asyncio.Task[None] | None = None
        self._stopping = False
        self._leaving = False
        self._broker = KafkaBroker(
            settings.bootstrap_servers,
            # Topics are created from the topic table, never by a subscription.
            allow_auto_create_topics=False,
            metadata_max_age_ms=METADATA_MS,
            logger=logging.getLogger("faststream"),
            log_level=logging.DEBUG,
        )
        rebalance_timeout = settings.rebalance_timeout
        self._subscriber = self._broker.subscriber(
            *(topic.name for topic in settings.topics),
            group_id=settings.group_id,
            batch=True,
            batch_timeout_ms=round(settings.batch_wait * 1000),
            max_records=settings.max_records,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_poll_interval_ms=round(settings.max_poll_interval * 1000),
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.heartbeat * 1000),
            rebalance_timeout_ms=(
                None if rebalance_timeout is None else round(rebalance_timeout * 1000)
            ),
            fetch_max_bytes=settings.fetch_bytes,
            max_partition_fetch_bytes=settings.partition_fetch_bytes,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            listener=self,
            parser=_skip_parsing,
            decoder=_skip_decoding,
        )
        self._subscriber(self._handle)
        work.attach(self)

    async def start(self) -> None:
        """Join the group and start reading.

        Raises:
            Unavailable: the broker cannot be reached now.
        """
        with kafka_errors("join the consumer group"):
            try:
                await self._broker.start()
            except BaseException:
                self._leaving = True
                await self._broker.stop()
                raise
        self._consumer = self._subscriber.consumer
        self.work.start()

    async def stop(self) -> None:
        """Finish the records in flight within `shutdown_grace`, then leave the group."""
        self._stopping = True
        if self._consumer is not None:
            self._pause()
        await self._give_up(self._settings.shutdown_grace)
        await self.work.stop()
        for task in (self._resuming, self._beginning):
            if task is not None:
                task.cancel()
        self._chosen.set()
        self._leaving = True
        await self._broker.stop()

    async def _handle(self, message: KafkaMessage) -> None:
        raw = message.raw_message
        records: Sequence[ConsumerRecord] = raw if isinstance(raw, tuple) else (raw,)
        try:
            self.check()
            # Until the start offsets are chosen, batches are discarded: do not fetch more of them.
            await self._chosen.wait()
            self.check()
            fetched = self._next.take(self._consumer, records)
            self._check_foreign(fetched.foreign)
            self.work.put(fetched.records)
            if self.work.is_full:
                self._pause()
        except Exception as error:
            # FastStream would log the error and go on polling, and the batch would be skipped.
            self.work.fail(error)
            raise

    def _check_foreign(self, partitions: set[Partition]) -> None:
        """Ignore records of partitions that were just revoked: the next owner reads them.

        Raises:
            RebalanceFailed: one of the partitions is still assigned.
        """
        if not partitions or self.rebalancing or self._stopping:
            return
        assigned = {(each.topic, each.partition) for each in self._consumer.assignment()}
        for topic, number in partitions:
            if (topic.name, number) in assigned:
                # The fetch position is already past these records: going on would lose them.
                raise RebalanceFailed(f"{topic.name}-{number} is read from an unknown offset")

    def _pause(self) -> None:
        """Go on polling without fetching, until there is room again."""
        assigned = self._consumer.assignment() if self._consumer is not None else set()
        self._consumer.pause(*assigned)
        self._paused |= assigned
        if self._resuming is None or self._resuming.done():
            self._resuming = asyncio.create_task(self._resume_with_room())
            self._resuming.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        # If such a task dies, partitions stay paused or are never read, which looks like no work.
        if not task.cancelled():
            if error := task.exception():
                self.work.fail(error)
        elif task is self._beginning and not self._stopping:
            self._keep_failure(asyncio.CancelledError())

    async def _resume_with_room(self) -> None:
        await self.work.wait_for_room()
        # Partitions that were revoked meanwhile cannot be resumed.
        ours = self._paused & self._consumer.assignment()
        self._paused.clear()
        self._consumer.resume(*ours)

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """See `Rebalances.revoked`; takes much less than the coordinator's rebalance timeout."""
        if partitions:
            await self._give_up(self._settings.rebalance_grace)
        else:
            self._release()

    async def _give_up(self, seconds: float) -> None:
        self._release()
        if not self._chosen.is_set() and (beginning := self._beginning) is not None:
            # Nothing was put in yet, and the next owner chooses its own start offsets.
            self._beginning = None
            beginning.cancel()
            await asyncio.wait({beginning})
        await self.work.give_up(seconds)

    def _release(self) -> None:
        self._next.give_up()
        self._assigned = ()

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """See `Rebalances.assigned`. No record in flight belongs to the new assignment."""
        self._paused.clear()
        self._next.give_up()
        self._assigned = [(BY_NAME[each.topic], each.partition) for each in sorted(partitions)]
        self._chosen.clear()
        if self._consumer is None:
            # The first assignment arrives while the consumer is still starting.
            self._consumer = self._subscriber.consumer
        if (former := self._beginning) is not None:
            self._beginning = None
            former.cancel()
        self._beginning = asyncio.create_task(self._begin(self._assigned))
        self._beginning.add_done_callback(self._note_end)
        logger.info(
            "partitions: %s", [f"{topic.name}-{number}" for topic, number in self._assigned]
        )

    async def _begin(self, partitions: Sequence[Partition]) -> None:
        """Choose the start offsets; until then, fetched batches are discarded."""
        try:
            starts = await self.work.choose_offsets(partitions)
        except Exception as error:
            self._keep_failure(error)
            raise
        if self._assigned is not partitions:
            return  # They were revoked meanwhile.
        self._next.begin(self._consumer, starts)
        self._chosen.set()
        await self.work.begin()

    def failed(self, error: RebalanceFailed) -> None:
        """See `Rebalances.failed`: FastStream would go on reading, so the work is ended."""
        # Leaving the group cancels the callbacks, when the work has already ended.
        if not self._leaving:
            self.work.fail(error)

    def continue_at(self, partition: Partition, offset: int) -> None:
        """Read this partition from `offset` on, if it is still assigned."""
        self._next.continue_at(self._consumer, partition, offset)

    async def broker_is_away(self) -> bool:
        """Whether the second connection cannot reach the broker either."""
        return not await self._log.is_ready()

    async def check_log(self) -> None:
        """Return if the log still holds the records that were read from it.

        Raises:
            LogLost: it has lost its end.
            Unavailable: the broker does not answer.
            RebalanceFailed: a callback has failed, so the assigned partitions are unknown.
        """
        self.check()
        with kafka_errors("read the log's end"):
            await self._next.check(self._consumer)

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, Committed]:
        """The group's committed offsets of these partitions; partitions without one are left out.

        Raises:
            Unavailable: the broker does not answer.
        """
        with kafka_errors("read the group's offsets"):
            return await committed(self._consumer, partitions)

    async def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        """Commit these offsets, once `GroupWork.begin` has returned.

        Raises:
            Unavailable: the broker cannot commit now.
            RebalanceFailed: a callback has failed, so the assigned partitions are unknown.
        """
        self.check()
        while (beginning := self._beginning) is not None and not beginning.done():
            await asyncio.wait({beginning})
        if beginning is not None:
            beginning.result()
        await self.commit_at_once(offsets)

    async def commit_at_once(self, offsets: Mapping[Partition, Committed]) -> None:
        """As `commit`, for use within `GroupWork.begin`."""
        self.check()
        try:
            with kafka_errors("commit"):
                await commit(self._consumer, offsets)
        except Unavailable:
            logger.debug("commit failed", exc_info=True)
            raise

    async def unread(self) -> int:
        """Unread records of the assigned partitions; 1 while rebalancing.

        Raises:
            Unavailable: the broker does not answer.
            RebalanceFailed: a callback has failed, so the assigned partitions are unknown.
        """
        self.check()
        if self.rebalancing:
            return 1
        with kafka_errors("lag"):
            return await self._next.unread(self._consumer)


async def _skip_parsing(records: tuple[ConsumerRecord, ...]) -> Batch:
    """The batch as fetched: FastStream's parser decodes headers, which may hold any bytes."""
    return Batch(raw_message=records, body=b"", consumer=FAKE_CONSUMER)


async def _skip_decoding(message: KafkaMessage) -> object:
    """The handler reads raw records, so FastStream need not decode their content."""
    return message.body
