"""The next offset of each partition that one member of a group reads, and what it commits.

`consumer` is aiokafka's, here and wherever it is an argument.
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
    LogRecord,
    Partition,
    Position,
    timestamp_ms,
)
from schemas.topics import BY_NAME

logger = logging.getLogger(__name__)

_NOT_OURS: Final = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class LogLost(Exception):
    """The log has lost records that were read. The process ends, and reads the log anew."""


class Fetched(NamedTuple):
    """What is to be made of the records that a consumer has fetched."""

    records: dict[Partition, list[LogRecord]]
    """To be handled, in the order of the log."""
    foreign: set[Partition]
    """Partitions with fetched records but no next offset: those records are left out."""


class NextOffsets:
    """How far one member has read its partitions."""

    def __init__(self, *, keep_headers: bool = True) -> None:
        """Without `keep_headers` records lose their headers, which take a third of the time."""
        self._next: dict[Partition, int] = {}
        self._seek_again = False
        self._keep_headers = keep_headers

    def begin(self, consumer: Any, starts: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets; no others are ours."""
        self._next = dict(starts)
        self._seek(consumer)

    def continue_at(self, consumer: Any, partition: Partition, offset: int) -> None:
        """Read this partition from here, if it is still ours."""
        if partition in self._next:
            self._next[partition] = offset
            self._seek(consumer)

    def give_up(self) -> None:
        """No partition is ours any more. What is in flight may still be committed."""
        self._next = {}

    def take(self, consumer: Any, records: Sequence[ConsumerRecord]) -> Fetched:
        """Sort out what was fetched, and advance the next offsets.

        Records of a partition that is not ours are left out: they are its next owner's, and
        applied here could overtake what that one has done since.

        Raises:
            LogLost: a partition goes on before the offset up to which it was read.
        """
        if self._next and self._seek_again:
            # Some of it may have been fetched before it was known where to read.
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
                    # aiokafka starts at the beginning where its offset does not exist.
                    raise LogLost(
                        f"{name}-{number} has offset {record.offset} where {due} was due: "
                        "it is not the log that was read before"
                    )
                due = record.offset + 1
                found.append(log_record(record, keep_headers=self._keep_headers))
            self._next[partition] = due
        return Fetched(taken, foreign)

    async def check(self, consumer: Any) -> None:
        """Return if the log still reaches as far as it was read.

        Raises:
            LogLost: it does not.
        """
        read = dict(self._next)
        ends = await _ends(consumer, list(read))
        for (topic, number), next_offset in read.items():
            if (end := ends[topic, number]) < next_offset:
                raise LogLost(f"{topic.name}-{number} ends at {end}, but was read to {next_offset}")

    async def unread(self, consumer: Any) -> int:
        """Records of the assigned partitions that were not yet read."""
        assigned = {(BY_NAME[each.topic], each.partition) for each in consumer.assignment()}
        ends = await _ends(consumer, list(assigned | self._next.keys()))
        # Of a partition whose beginning is not chosen yet, nothing was read.
        return sum(max(0, end - self._next.get(each, 0)) for each, end in ends.items())

    def _seek(self, consumer: Any) -> None:
        for partition, offset in self._next.items():
            consumer.seek(_of_kafka(partition), offset)
        self._seek_again = True


async def committed(consumer: Any, partitions: Sequence[Partition]) -> dict[Partition, Committed]:
    """What the group has committed of these partitions, where it has committed anything."""
    # aiokafka's own `committed` gives the offset and keeps the metadata to itself.
    found = await consumer._coordinator.fetch_committed_offsets(
        [_of_kafka(partition) for partition in partitions]
    )
    return {
        partition: Committed(said.offset, said.metadata)
        for partition in partitions
        if (said := found.get(_of_kafka(partition))) is not None
    }


async def commit(consumer: Any, offsets: Mapping[Partition, Committed]) -> None:
    """Commit these; what is refused as its partition was given up is left uncommitted."""
    if not offsets:
        return
    try:
        await consumer.commit(
            {_of_kafka(partition): tuple(each) for partition, each in offsets.items()}
        )
    except _NOT_OURS as error:
        # The next owner handles the records again, which does no harm.
        logger.warning("not committed, as the partitions were given up: %s", error)


def log_record(record: ConsumerRecord, *, keep_headers: bool = True) -> LogRecord:
    """What the consumer fetched, as the log gives it."""
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
