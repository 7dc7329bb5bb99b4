"""A consumer group's member that is told where to continue, instead of asking Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from adapters.errors import Rejected, translated
from adapters.log.port import LogRecord, PartitionOwner, Position, timestamp_ms
from adapters.log.rebalance import RebalanceFailed, Rebalances
from schemas.topics import BY_NAME, Topic

logger = logging.getLogger(__name__)

_DOWN: Final = (KafkaError, OSError, asyncio.TimeoutError)
_NOT_OURS: Final = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
SESSION_TIMEOUT_MS: Final = 10_000
HEARTBEAT_MS: Final = 2_000
METADATA_MS: Final = 15_000
"""A topic that is made anew, or gets more partitions, is noticed this soon."""


class KafkaGroupReader(Rebalances):
    """`GroupReader` through aiokafka. Reads a partition only once its owner said from where."""

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[Topic],
        group_id: str,
        owner: PartitionOwner,
        *,
        max_poll_interval: float = 300.0,
    ) -> None:
        """`max_poll_interval` in seconds: a member that reads nothing for longer is put out."""
        super().__init__()
        self._topics = [topic.name for topic in topics]
        self._owner = owner
        self._next: dict[TopicPartition, int] = {}
        self._assignments = 0
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=round(max_poll_interval * 1000),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            metadata_max_age_ms=METADATA_MS,
            fetch_max_bytes=32 * 1024 * 1024,
            max_partition_fetch_bytes=8 * 1024 * 1024,
            partition_assignment_strategy=(StickyPartitionAssignor,),
        )

    async def start(self) -> None:
        """See `GroupReader.start`."""
        with translated("join the consumer group", unavailable=_DOWN):
            try:
                self._consumer.subscribe(self._topics, listener=self)
                await self._consumer.start()
            except BaseException:
                await self._consumer.stop()
                raise

    async def read(
        self, *, timeout: float, max_records: int
    ) -> Mapping[tuple[Topic, int], Sequence[LogRecord]]:
        """See `GroupReader.read`."""
        self.check()
        before = self._assignments
        with translated("read", unavailable=_DOWN):
            fetched = await self._consumer.getmany(
                timeout_ms=round(timeout * 1000), max_records=max_records
            )
        self.check()
        if self._assignments != before:
            # Some of it may have been fetched before the owner said from where.
            for place, offset in self._next.items():
                self._consumer.seek(place, offset)
            return {}
        read: dict[tuple[Topic, int], Sequence[LogRecord]] = {}
        for place, records in fetched.items():
            if not records:
                continue
            if place not in self._next:
                if self.rebalancing or place not in self._consumer.assignment():
                    continue  # Its owner will say from where it is read.
                # The consumer has moved on already: to go on would lose these records.
                raise RebalanceFailed(f"{place.topic}-{place.partition} is read from nowhere")
            if records[0].offset < self._next[place]:
                raise Rejected(
                    f"{place.topic}-{place.partition} has offset {records[0].offset} where "
                    f"{self._next[place]} was asked for: it is not the log that was read before"
                )
            self._next[place] = records[-1].offset + 1
            read[BY_NAME[place.topic], place.partition] = [
                LogRecord(
                    Position(record.partition, record.offset),
                    record.key,
                    record.value,
                    timestamp_ms(record.timestamp),
                )
                for record in records
            ]
        return read

    def continue_at(self, topic: Topic, partition: int, offset: int) -> None:
        """See `GroupReader.continue_at`."""
        place = TopicPartition(topic.name, partition)
        if place in self._next:
            self._next[place] = offset
            self._consumer.seek(place, offset)

    async def commit(self, following: Mapping[tuple[Topic, int], int]) -> None:
        """See `GroupReader.commit`."""
        offsets = {
            TopicPartition(topic.name, number): offset
            for (topic, number), offset in following.items()
        }
        ours = {place: offset for place, offset in offsets.items() if place in self._next}
        if not ours:
            return
        with translated("commit", unavailable=_DOWN):
            try:
                await self._consumer.commit(ours)
            except _NOT_OURS as error:
                logger.info("not committed, as the partitions were given up: %s", error)

    async def lag(self) -> int:
        """See `GroupReader.lag`."""
        self.check()
        with translated("lag", unavailable=_DOWN):
            ours = list(self._consumer.assignment() | self._next.keys())
            ends = await self._consumer.end_offsets(ours) if ours else {}
            # Of a partition whose beginning nobody has chosen yet, nothing was read.
            return sum(max(0, end - self._next.get(place, 0)) for place, end in ends.items())

    async def stop(self) -> None:
        """See `GroupReader.stop`."""
        with translated("leave the consumer group", unavailable=_DOWN):
            await self._consumer.stop()
        self._next.clear()

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """See `Rebalances.revoked`."""
        self._assignments += 1
        if partitions:
            await self._owner.revoked([(BY_NAME[p.topic], p.partition) for p in sorted(partitions)])
        self._next.clear()

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """See `Rebalances.assigned`."""
        places = [(BY_NAME[p.topic], p.partition) for p in sorted(partitions)]
        starts = await self._owner.assigned(places)
        self._assignments += 1
        self._next = {
            TopicPartition(topic.name, number): offset for (topic, number), offset in starts.items()
        }
        for place, offset in self._next.items():
            self._consumer.seek(place, offset)
        logger.info("partitions: %s", [f"{topic.name}-{number}" for topic, number in places])
