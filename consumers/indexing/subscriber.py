"""FastStream's subscribers: what reads which topic, in which group, and how it is committed.

The only file that knows FastStream. Its own acknowledgement is not used (`AckPolicy.MANUAL`, never
called): it commits positions rather than what was handled, and swallows the errors of doing so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage

from adapters.errors import Unavailable, translated
from adapters.index.facts import FACTS_VERSION
from adapters.log.port import EventLog
from adapters.log.positions import Positions, Starts, log_record
from adapters.log.rebalance import RebalanceFailed, Rebalances
from adapters.retry import until_available
from consumers.indexing.indexer import Indexer
from consumers.indexing.pipeline import Lane
from consumers.indexing.settings import IndexingSettings
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

_DOWN = (KafkaError, OSError, asyncio.TimeoutError)
SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 1_500
METADATA_MS = 15_000
REJOIN_SECONDS = 10.0


class IndexingApp(Rebalances):
    """One member of the group that fills one collection from `images`."""

    def __init__(
        self,
        settings: IndexingSettings,
        indexer: Indexer,
        group_id: str,
        log: EventLog,
        begins_anew: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`log` is another connection to the broker, to tell a broken consumer from its outage.

        `begins_anew` is awaited when the group knows nothing of one of its partitions, or what it
        knows is of another log, as when the broker has lost everything or the log its end; nothing
        is committed before, so a crash meanwhile is no end.
        """
        super().__init__()
        self._begins_anew = begins_anew
        self._beginning: asyncio.Task[None] | None = None
        self._settings = settings
        self._log = log
        self._group_id = group_id
        self._consumer: Any = None
        self._positions = Positions(log, facts_version=FACTS_VERSION)
        self._assigned: list[TopicPartition] = []
        self._chosen = asyncio.Event()
        self._chosen.set()
        self._paused: set[TopicPartition] = set()
        self._resuming: asyncio.Task[None] | None = None
        self._leaving = False
        self.lane = Lane(
            indexer,
            self._commit,
            capacity=2 * settings.batch_records,
            broker_is_away=self.broker_is_away,
        )
        self._broker = KafkaBroker(
            settings.kafka_bootstrap_servers,
            # Topics come from the topic table, never from a subscription.
            allow_auto_create_topics=False,
            # A topic that is made anew, or gets more partitions, is noticed this soon.
            metadata_max_age_ms=METADATA_MS,
            logger=logging.getLogger("faststream"),
            log_level=logging.DEBUG,
        )
        self._subscriber = self._broker.subscriber(
            IMAGES.name,
            group_id=group_id,
            batch=True,
            batch_timeout_ms=round(settings.batch_wait * 1000),
            max_records=settings.batch_records,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_poll_interval_ms=round(settings.max_poll_interval * 1000),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            # Members are given this long to finish and rejoin; aiokafka's default is the session's.
            rebalance_timeout_ms=round((settings.rebalance_grace + REJOIN_SECONDS) * 1000),
            partition_assignment_strategy=(StickyPartitionAssignor,),
            listener=self,
            decoder=_undecoded,
        )
        self._subscriber(self._handle)

    async def start(self) -> None:
        """Join the group and begin.

        Raises:
            Unavailable: the broker cannot be reached now.
        """
        with translated("join the consumer group", unavailable=_DOWN):
            try:
                await self._broker.start()
            except BaseException:
                self._leaving = True
                await self._broker.stop()
                raise
        self._consumer = self._subscriber.consumer
        self.lane.start()

    async def stop(self) -> None:
        """Finish what is under way within the grace, then leave the group."""
        self._positions.let_go()
        self._assigned = []
        if self._consumer is not None:
            self._pause()
        if not await self.lane.drain(self._settings.shutdown_grace):
            logger.warning("%d records were under way; they are read again", self.lane.under_way)
        await self.lane.stop()
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
            # What comes before that is read again, so no more of it should be fetched.
            await self._chosen.wait()
            self.check()
            found = [log_record(record) for record in records]
            self.lane.put(self._positions.take(self._consumer, found))
            if self.lane.is_full:
                self._pause()
        except Exception as error:
            # FastStream would log it and poll on, and the batch would be skipped.
            self.lane.fail(error)
            raise

    def _pause(self) -> None:
        """Poll on without fetching, until there is room again."""
        assigned = self._consumer.assignment() if self._consumer is not None else set()
        self._consumer.pause(*assigned)
        self._paused |= assigned
        if self._resuming is None or self._resuming.done():
            self._resuming = asyncio.create_task(self._resume_with_room())
            self._resuming.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        # Partitions that stay paused would look like nothing to do.
        if not task.cancelled() and (error := task.exception()):
            self.lane.fail(error)

    async def _resume_with_room(self) -> None:
        await self.lane.wait_for_room()
        # Partitions that were given up meanwhile cannot be resumed.
        ours = self._paused & self._consumer.assignment()
        self._paused.clear()
        self._consumer.resume(*ours)

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """Finish or forget what is under way before somebody else gets the partitions."""
        self._positions.let_go()
        self._assigned = []
        if not partitions or self.lane.under_way == 0:
            return
        # Well below the time the coordinator gives members to rejoin.
        if not await self.lane.drain(self._settings.rebalance_grace):
            logger.warning("rebalance: %d records under way are forgotten", self.lane.under_way)
            await self.lane.drop()

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """Nothing under way belongs to the new assignment."""
        self._paused.clear()
        self._positions.let_go()
        self._assigned = partitions
        self._chosen.clear()
        if self._consumer is None:
            # The first assignment comes while the consumer still starts.
            self._consumer = self._subscriber.consumer
        if self._beginning is not None:
            self._beginning.cancel()
        self._beginning = asyncio.create_task(self._begin(partitions))
        self._beginning.add_done_callback(self._note_end)
        logger.info("partitions: %s", sorted(partition.partition for partition in partitions))

    async def _begin(self, partitions: list[TopicPartition]) -> None:
        """Choose where to read from; until then nothing that is fetched is taken."""
        numbers = [partition.partition for partition in partitions]

        async def look_up() -> Starts:
            with translated("look at the group's offsets", unavailable=_DOWN):
                return await self._positions.look_up(self._consumer, numbers)

        starts = await until_available(look_up, what="Kafka")
        if self._assigned is not partitions:
            return  # They were given up meanwhile.
        self._positions.begin(self._consumer, starts)
        self._chosen.set()
        if starts.again:
            logger.info("reading again what an earlier version has read: %s", sorted(starts.again))
        if starts.anew and self._begins_anew is not None:
            await self._begins_anew()
        # So whoever comes next need not begin anew, and everybody sees what is still to be read.
        first = {number: starts.offsets[number] for number in starts.anew | starts.again}
        if not first:
            return
        await until_available(lambda: self._commit_now(first), what="Kafka")

    def failed(self, error: RebalanceFailed) -> None:
        """See `Rebalances.failed`: FastStream reads on by itself, so the work is ended."""
        # To leave the group cancels the callbacks; there is no work left to be ended.
        if not self._leaving:
            self.lane.fail(error)

    async def broker_is_away(self) -> bool:
        """Whether another connection cannot reach the broker either."""
        return not await self._log.is_ready()

    async def look(self) -> None:
        """Return if the log still holds what was read of it.

        Raises:
            LogLost: it lost its end.
            Unavailable: the broker cannot say.
            RebalanceFailed: a callback has failed, so that nobody knows what is ours.
        """
        self.check()
        with translated("look at the log's end", unavailable=_DOWN):
            await self._positions.check(self._consumer)

    async def _commit(self, following: Mapping[int, int]) -> None:
        self.check()
        while (beginning := self._beginning) is not None and not beginning.done():
            await asyncio.wait({beginning})
        if beginning is not None:
            beginning.result()
        await self._commit_now(following)

    async def _commit_now(self, following: Mapping[int, int]) -> None:
        self.check()
        try:
            with translated("commit", unavailable=_DOWN):
                await self._positions.commit(self._consumer, following)
        except Unavailable:
            logger.debug("commit failed", exc_info=True)
            raise

    async def lag(self) -> int:
        """Records of the assigned partitions that are not yet committed; 1 while rebalancing.

        Raises:
            Unavailable: the broker cannot say.
            RebalanceFailed: a callback has failed, so that nobody knows what is ours.
        """
        self.check()
        if self.rebalancing:
            return 1
        with translated("lag", unavailable=_DOWN):
            assigned = list(self._consumer.assignment())
            ends = await self._consumer.end_offsets(assigned) if assigned else {}
            behind = 0
            for partition in assigned:
                committed = await self._consumer.committed(partition)
                start = committed
                if start is None:
                    start = (await self._consumer.beginning_offsets([partition]))[partition]
                behind += max(0, ends[partition] - start)
            return behind


async def _undecoded(message: KafkaMessage) -> object:
    """The handler reads raw records; FastStream's guess at their content would be wasted."""
    return message.body
