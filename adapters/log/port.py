"""The ports of the event log: an append-only log for each topic, and its consumer groups.

Every method may raise `adapters.errors.Unavailable`. The real log and groups (`adapters.log.kafka`,
`adapters.log.kafka_admin`) and the fake ones (`adapters.log.fake`) pass the same contract tests
(`tests/contract`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from schemas.events import Event
from schemas.topics import Topic

NO_HEADERS: Final[Mapping[str, bytes]] = MappingProxyType({})


LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def timestamp_ms(stated: int) -> int:
    """A record's timestamp in milliseconds since 1970, limited to what readers can represent.

    Producers may set any number. A time after the year 9999 becomes the last millisecond of that
    year; a negative time becomes -1, which is Kafka's value for an unknown time.
    """
    return stated if -1 <= stated <= LATEST_MS else min(max(stated, -1), LATEST_MS)


Partition = tuple[Topic, int]
"""A partition of a topic: the topic, and the partition's number."""


class Committed(NamedTuple):
    """What a consumer group commits of a partition."""

    offset: int
    """The next offset to be handled."""
    metadata: str = ""


class Position(NamedTuple):
    """The partition and offset of a record in its topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish; `event` None is a removal (a tombstone on a compacted topic).

    An `event` of bytes is already encoded, as `schemas.codec.encode` does it.
    """

    key: str
    event: Event | bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


class LogRecord(NamedTuple):
    """A record as it was read, with key and value as bytes.

    A tuple, as there are millions of them and a frozen dataclass takes four times as long.
    """

    position: Position
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Mapping[str, bytes] = NO_HEADERS


class LogLost(Exception):
    """The log lacks records that it held before. The process has to start reading again."""


class EventLog(Protocol):
    """An append-only log for each topic."""

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """Append all messages; when this returns, they are durable (acks=all).

        Messages of one key keep their order. After `Unavailable` some of the messages may have
        been written: publish the same messages again, as readers are idempotent.

        Raises:
            Rejected: a message can never be written (too large, a key that is not Unicode).
            Unavailable: the broker cannot take them now.
        """
        ...

    def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        """Every record from the beginning to the end of the log as of the time of the call.

        Records of one partition come in offset order; those of different partitions interleave.
        `start` is the first offset in each partition; or a time, which stands for the first record
        in each partition with that Kafka timestamp or a later one; or partition -> first offset,
        and then only those partitions are read.
        """
        ...

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        """Partition -> the oldest offset that exists, and the next one to be written."""
        ...

    async def is_ready(self) -> bool:
        """Whether the broker answers now; False if it is down."""
        ...

    async def close(self) -> None:
        """Flush buffered messages and release connections."""
        ...


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """How far a consumer group has read a topic.

    For each partition: the next offset that the group reads, and the end of the log.
    """

    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> int:
        """Number of records to read, over all partitions; an upper bound on compacted topics."""
        return sum(max(0, end - self.committed.get(p, 0)) for p, end in self.ends.items())

    def has_read(self, partition: int, offset: int) -> bool:
        """Whether the group has committed an offset after this record."""
        return offset < self.committed.get(partition, 0)


class GroupAdmin(Protocol):
    """Consumer groups, as seen by a non-member."""

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        """The group's progress on the topic; a group that never committed has read nothing."""
        ...

    async def delete(self, group: str) -> None:
        """Delete a group's offsets, so that a group of the same name reads from the beginning.

        A group that does not exist is no error.

        Raises:
            Unavailable: the group still has members.
        """
        ...
