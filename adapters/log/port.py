"""What the application needs of Kafka: an append-only log per topic, and groups that share it.

Implementations and rules as for `adapters.index.port`.
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


def timestamp_ms(said: int) -> int:
    """A record's timestamp as every reader can take it, in milliseconds since 1970.

    Kafka keeps whatever the producer said. What no calendar has becomes the latest that one has,
    and what is below zero -1, which is Kafka's own word for a time that is not known.
    """
    return said if -1 <= said <= LATEST_MS else min(max(said, -1), LATEST_MS)


Partition = tuple[Topic, int]
"""A partition of a topic: the topic, and the partition's number."""


class Committed(NamedTuple):
    """What a consumer group commits of a partition."""

    offset: int
    """The next offset to be handled."""
    metadata: str = ""


class Position(NamedTuple):
    """Where a record stands in its topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish; `event` None is a removal (a tombstone on a compacted topic).

    Bytes are an event as `schemas.codec.encode` gives it, encoded by whoever made it.
    """

    key: str
    event: Event | bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


class LogRecord(NamedTuple):
    """A record as it was read, still as bytes.

    A tuple, as these are made by the million and a frozen dataclass takes four times as long.
    """

    position: Position
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Mapping[str, bytes] = NO_HEADERS


class EventLog(Protocol):
    """Kafka, seen as an append-only log per topic."""

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """Append all messages; when this returns, each is durable (acks=all).

        Messages of one key keep their order. After `Unavailable` some of the messages may have
        been written: publish the same again, readers are idempotent.

        Raises:
            Rejected: a message can never be written (too large, a key that is not Unicode).
            Unavailable: the broker cannot take them now.
        """
        ...

    def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        """Every record from the beginning to the end as it is at the time of the call.

        Records of one partition come in offset order; those of different partitions interleave.
        `start` is the offset to begin with in each partition, or the time (of Kafka's timestamps)
        to begin at: in each partition its first record that is as late as that. As partition ->
        offset it also names the only partitions that are read.
        """
        ...

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        """partition -> the oldest offset that is kept, and the next one to be written."""
        ...

    async def is_ready(self) -> bool:
        """Whether the broker answers now; never raises for a broker that is down."""
        ...

    async def close(self) -> None:
        """Flush what is buffered and release connections."""
        ...
