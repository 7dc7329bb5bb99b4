"""Where each partition of `images` is read, and whether it is still the log that was read before.

An offset alone does not tell: a log that lost its end and grew again holds other records at it. So
with each offset a mark of the record before it is committed, and held against the log by whoever
is given the partition.

The mark begins with the version of what is read of a picture. A partition that was read by an
earlier one is read again from its beginning, which corrects what the index says of its pictures.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from adapters.errors import Unavailable
from adapters.log.port import EventLog, LogRecord, Position, timestamp_ms
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

MARK_BYTES: Final = 16
_BETWEEN: Final = ":"
_NOT_OURS: Final = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class LogLost(Exception):
    """The log lost records that were read: to begin anew reads it from its beginning."""


class Starts(NamedTuple):
    """partition -> the offset to read from, and those of them that are read from the beginning, as
    nothing is known of them or what is known is of a log that is no more."""

    offsets: Mapping[int, int]
    anew: frozenset[int]
    again: frozenset[int] = frozenset()
    """Those that are read from the beginning, as an earlier version has read them."""


class Positions:
    """How far one member has read its partitions. Its consumer is aiokafka's.

    Args:
        log: where the partitions are.
        facts_version: committed with each offset; a partition that was read by an earlier one is
            read again.
    """

    def __init__(self, log: EventLog, *, facts_version: int) -> None:
        self._log = log
        self._facts_version = facts_version
        self._next: dict[int, int] = {}
        self._is_fresh = False
        self._marks: dict[Position, str] = {}

    async def look_up(self, consumer: Any, partitions: Sequence[int]) -> Starts:
        """Where to begin with these partitions, by what their group has committed.

        Raises:
            Unavailable: the log cannot be read now.
        """
        places = [_place(number) for number in partitions]
        # `committed` gives the offset and keeps the metadata to itself.
        committed = await consumer._coordinator.fetch_committed_offsets(places)
        bounds = await self._log.bounds(IMAGES)
        offsets: dict[int, int] = {}
        anew: set[int] = set()
        again: set[int] = set()
        for number, place in zip(partitions, places, strict=True):
            if number not in bounds:
                raise Unavailable(f"{IMAGES.name}-{number} is not known yet")
            first, end = bounds[number]
            said = committed.get(place)
            offsets[number] = first
            if said is None or not await self._is_of_this_log(number, said, end):
                anew.add(number)
            elif _facts_version(said) < self._facts_version:
                again.add(number)
            else:
                offsets[number] = said.offset
        return Starts(offsets, frozenset(anew), frozenset(again))

    async def _is_of_this_log(self, number: int, said: OffsetAndMetadata, end: int) -> bool:
        if end < said.offset:
            return False
        known = said.metadata.rpartition(_BETWEEN)[2]
        if not known or said.offset == 0:
            return True  # Earlier versions committed no mark.
        last = said.offset - 1
        reading: Any = self._log.read_all(IMAGES, {number: last})
        async with aclosing(reading):
            async for record in reading:
                # What was compacted away says nothing.
                return bool(record.position.offset != last or mark(record) == known)
        return True

    def begin(self, consumer: Any, starts: Starts) -> None:
        """Read from there; these partitions are ours now."""
        self._next = dict(starts.offsets)
        self._marks.clear()
        self._is_fresh = True
        self._seek(consumer)

    def let_go(self) -> None:
        """No partition is ours any more. What is under way may still be committed."""
        self._next = {}

    def take(self, consumer: Any, records: Sequence[LogRecord]) -> list[LogRecord]:
        """Those to be handled of what was fetched.

        What was fetched just before its partition was given up is its next owner's: applied here
        it could overtake what that one has done since.

        Raises:
            LogLost: the log goes on before where it was read to.
        """
        if self._next and self._is_fresh:
            # Some of it may have been fetched before it was said where to begin.
            self._is_fresh = False
            self._seek(consumer)
            return []
        ours = [record for record in records if record.position.partition in self._next]
        newest: dict[int, LogRecord] = {}
        for record in ours:
            number, offset = record.position
            if offset < self._next[number]:
                # aiokafka begins again by itself where it is told that its offset is not there.
                raise LogLost(
                    f"{IMAGES.name}-{number} has offset {offset} where {self._next[number]} was due"
                )
            self._next[number] = offset + 1
            newest[number] = record
        for number, record in newest.items():
            self._marks[Position(number, self._next[number])] = mark(record)
        return ours

    async def commit(self, consumer: Any, following: Mapping[int, int]) -> None:
        """Commit these next offsets, each with the mark of what lies before it."""
        for position in list(self._marks):
            if position.offset < following.get(position.partition, 0):
                del self._marks[position]
        offsets = {
            _place(number): (offset, self._metadata(Position(number, offset)))
            for number, offset in following.items()
        }
        try:
            await consumer.commit(offsets)
        except _NOT_OURS as error:
            # Given up meanwhile: the next owner reads them again, which does no harm.
            logger.warning("not committed, as the partitions were given up: %s", error)

    async def check(self, consumer: Any) -> None:
        """Return if the log still reaches as far as it was read.

        Raises:
            LogLost: it does not.
        """
        read = dict(self._next)
        ends = await consumer.end_offsets([_place(number) for number in read]) if read else {}
        for number, following in read.items():
            if (end := ends[_place(number)]) < following:
                raise LogLost(f"{IMAGES.name}-{number} ends at {end}, but was read to {following}")

    def _metadata(self, position: Position) -> str:
        return f"{self._facts_version}{_BETWEEN}{self._marks.get(position, '')}"

    def _seek(self, consumer: Any) -> None:
        for number, offset in self._next.items():
            consumer.seek(_place(number), offset)


def _facts_version(said: OffsetAndMetadata) -> int:
    version = said.metadata.partition(_BETWEEN)[0]
    return int(version) if _BETWEEN in said.metadata and version.isdecimal() else 0


def mark(record: LogRecord) -> str:
    """Tells the record from any other that may come to its place."""
    said = repr((record.timestamp_ms, record.key, record.value))
    return hashlib.blake2b(said.encode(), digest_size=MARK_BYTES).hexdigest()


def log_record(record: ConsumerRecord) -> LogRecord:
    """What the consumer fetched, as the log gives it."""
    return LogRecord(
        position=Position(record.partition, record.offset),
        key=record.key,
        value=record.value,
        timestamp_ms=timestamp_ms(record.timestamp),
        headers={name: value or b"" for name, value in record.headers},
    )


def _place(number: int) -> TopicPartition:
    return TopicPartition(IMAGES.name, number)
