"""A fake (in-memory) event log and its consumer groups, without a server.

For unit tests and experiments. They pass the contract suites that the real adapters pass.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.errors import Rejected, Unavailable
from adapters.fake import Fake
from adapters.log.port import GroupProgress, LogRecord, Message, Partition, Position
from schemas.codec import InvalidEvent, encode, encode_key
from schemas.topics import Topic


@dataclass
class FakeEventLog(Fake):
    """Topics as lists. Keys are spread over `topic.partitions` by hash, as Kafka does."""

    topics: dict[str, list[list[LogRecord]]] = field(default_factory=dict)

    def _partitions(self, topic: Topic) -> list[list[LogRecord]]:
        return self.topics.setdefault(topic.name, [[] for _ in range(topic.partitions)])

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        self.check()
        prepared = [_prepared(message) for message in messages]
        positions = []
        for message, (key, value) in zip(messages, prepared, strict=True):
            partitions = self._partitions(topic)
            number = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % len(partitions)
            position = Position(number, len(partitions[number]))
            partitions[number].append(
                LogRecord(
                    position=position,
                    key=key,
                    value=value,
                    timestamp_ms=time.time_ns() // 1_000_000,
                    headers={name: text.encode() for name, text in message.headers.items()},
                )
            )
            positions.append(position)
        return positions

    async def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        self.check()
        for number, partition in enumerate([list(each) for each in self._partitions(topic)]):
            if isinstance(start, Mapping):
                if number not in start:
                    continue
                first = bisect_left(partition, start[number], key=lambda each: each.position.offset)
            else:
                first = _first(partition, start)
            for record in partition[first:]:
                yield record

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        self.check()
        return {n: (0, len(records)) for n, records in enumerate(self._partitions(topic))}

    async def is_ready(self) -> bool:
        return self.available

    async def close(self) -> None:
        return None


@dataclass
class FakeGroupAdmin(Fake):
    """The groups of a log. Tests set what a group has committed, and which groups have members."""

    log: FakeEventLog = field(default_factory=FakeEventLog)
    committed: dict[str, dict[Partition, int]] = field(default_factory=dict)
    """Group -> the next offset to be handled, for each partition."""
    active: set[str] = field(default_factory=set)
    """Groups that have members."""

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        self.check()
        bounds = await self.log.bounds(topic)
        offsets = self.committed.get(group, {})
        return GroupProgress(
            committed={number: offset for (of, number), offset in offsets.items() if of == topic},
            ends={number: end for number, (_, end) in bounds.items()},
        )

    async def delete(self, group: str) -> None:
        self.check()
        if group in self.active:
            raise Unavailable(f"delete the group {group}: it has members")
        self.committed.pop(group, None)


def _first(records: Sequence[LogRecord], start: int | datetime | None) -> int:
    """Index of the record to begin with."""
    if isinstance(start, datetime):
        milliseconds = math.floor(start.timestamp() * 1000)
        late = (i for i, record in enumerate(records) if record.timestamp_ms >= milliseconds)
        return next(late, len(records))
    return start or 0


def _prepared(message: Message) -> tuple[bytes, bytes | None]:
    try:
        return encode_key(message.key), None if message.event is None else encode(message.event)
    except InvalidEvent as error:
        raise Rejected(str(error)) from error
