"""The next offset of each partition that one member of a group reads, and its commits.

Arguments named `consumer` are an `AIOKafkaConsumer`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from adapters.log.port import (
    NO_HEADERS,
    Committed,
    LogLost,
    LogRecord,
    Partition,
    Position,
    timestamp_ms,
)
from schemas.topics import BY_NAME

logger = logging.getLogger(__name__)

_REVOKED: Final = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class Fetched(NamedTuple):
    """The records that a consumer has fetched, sorted by whether they are to be handled."""

    records: dict[Partition, list[LogRecord]]
    """To be handled, in the order of the log."""
    foreign: set[Partition]
    """Partitions with fetched records but no next offset; those records are dropped."""


class NextOffsets:
    """How far one member has read its partitions."""

    def __init__(self, *, keep_headers: bool = True) -> None:
        """Without `keep_headers` records have no headers, which saves a third of the time."""
        self._next: dict[Partition, int] = {}
        self._seek_again = False
        self._keep_headers = keep_headers

    def begin(self, consumer: Any, starts: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, and no others."""
        self._next = dict(starts)
        self._seek(consumer)

    def continue_at(self, consumer: Any, partition: Partition, offset: int) -> None:
        """Read this partition from this offset on, if it is still assigned."""
        if partition in self._next:
            self._next[partition] = offset
            self._seek(consumer)

    def give_up(self) -> None:
        """Read no partition any more. Records in flight may still be committed."""
        self._next = {}

    def take(self, consumer: Any, records: Sequence[ConsumerRecord]) -> Fetched:
        """Sort the fetched records, and advance the next offsets.

        Records of other partitions are dropped: their owner handles them, and handling them here
        could undo what it has done since.

        Raises:
            LogLost: a record has a lower offset than the next one to read.
        """
        if self._next and self._seek_again:
            # Some records may have been fetched before the seek.
            self._seek(consumer)
            self._seek_again = False
            return Fetched({}, set())
        taken: dict[Partition, list[LogRecord]] = {}
        foreign: set[Partition] = set()
        for (name, number), fetched in groupby(records, attrgetter("topic", "partition")):
            partition = (BY_NAME[name], number)
            due = self._next.get(partition)
            if due is None:
                foreign.add(partition)
                continue
            found = taken.setdefault(partition, [])
            for record in fetched:
                if record.offset < due:
                    # aiokafka restarts at the beginning if the offset does not exist.
                    raise LogLost(
                        f"{name}-{number} continues at offset {record.offset}, not at {due}: "
                        "it is not the log that was read before"
                    )
                due = record.offset + 1
                found.append(log_record(record, keep_headers=self._keep_headers))
            self._next[partition] = due
        return Fetched(taken, foreign)

    async def check(self, consumer: Any) -> None:
        """Return if no partition ends before its next offset.

        Raises:
            LogLost: one does.
        """
        read = dict(self._next)
        ends = await _ends(consumer, list(read))
        for (topic, number), next_offset in read.items():
            if (end := ends[topic, number]) < next_offset:
                raise LogLost(
                    f"{topic.name}-{number} ends at {end}, but was read up to {next_offset}"
                )

    async def unread(self, consumer: Any) -> int:
        """Records of the assigned partitions that were not yet read."""
        assigned = {(BY_NAME[each.topic], each.partition) for each in consumer.assignment()}
        ends = await _ends(consumer, list(assigned | self._next.keys()))
        # A partition without a next offset has not been read at all.
        return sum(max(0, end - self._next.get(each, 0)) for each, end in ends.items())

    def _seek(self, consumer: Any) -> None:
        for partition, offset in self._next.items():
            consumer.seek(_of_kafka(partition), offset)
        self._seek_again = True


async def committed(consumer: Any, partitions: Sequence[Partition]) -> dict[Partition, Committed]:
    """What the group has committed for these partitions; those without a commit are absent."""
    # aiokafka's public `committed` returns the offset without the metadata.
    found = await consumer._coordinator.fetch_committed_offsets(
        [_of_kafka(partition) for partition in partitions]
    )
    return {
        partition: Committed(said.offset, said.metadata)
        for partition in partitions
        if (said := found.get(_of_kafka(partition))) is not None
    }


async def commit(consumer: Any, offsets: Mapping[Partition, Committed]) -> None:
    """Commit these. Offsets of partitions that were revoked meanwhile are not committed."""
    if not offsets:
        return
    try:
        await consumer.commit(
            {_of_kafka(partition): tuple(each) for partition, each in offsets.items()}
        )
    except _REVOKED as error:
        # The next owner handles the records again, which is harmless.
        logger.warning("not committed, because the partitions were revoked: %s", error)


def log_record(record: ConsumerRecord, *, keep_headers: bool = True) -> LogRecord:
    """A fetched record in the form of the port."""
    return LogRecord(
        Position(record.partition, record.offset),
        record.key,
        record.value,
        timestamp_ms(record.timestamp),
        {name: value or b"" for name, value in record.headers} if keep_headers else NO_HEADERS,
    )


async def _ends(consumer: Any, partitions: Sequence[Partition]) -> dict[Partition, int]:
    if not partitions:
        return {}
    ends = await consumer.end_offsets([_of_kafka(partition) for partition in partitions])
    return {partition: ends[_of_kafka(partition)] for partition in partitions}


def _of_kafka(partition: Partition) -> TopicPartition:
    topic, number = partition
    return TopicPartition(topic.name, number)
