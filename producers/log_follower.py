"""The log as the watcher sees it, which notices that `images` lost its end.

A Kafka whose machine loses power may lose what it had acknowledged. What is written then comes to
lie where the lost records were, and soon the log ends as late as ever. So all that is known of the
log is held against all that is heard of it: what was read and acknowledged is there, and whatever
is asked or written later ends or lies behind it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from adapters.errors import AdapterError
from adapters.log.port import EventLog, LogRecord, Message, Position
from schemas.codec import encode_key
from schemas.topics import IMAGES, Topic


class LogLost(Exception):
    """The log lacks what it held before: only to begin anew makes it whole."""


class FollowedLog:
    """An `EventLog` for all sources together, any call of which may raise `LogLost`.

    Several may publish at once, and their answers come in any order. So an answer is held against
    what was known when its question was asked.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._ends: dict[int, int] = {}
        self._newest: dict[int, tuple[int, bytes | None]] = {}
        self._in_doubt = False
        self._lost: LogLost | None = None

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """See `EventLog.publish`."""
        if topic is not IMAGES:
            return await self._log.publish(topic, messages)
        if self._in_doubt:
            await self._look_again()
        following = dict(self._ends)
        try:
            positions = await self._log.publish(topic, messages)
        except AdapterError:
            # Some may be written, and nobody said where.
            self._in_doubt = True
            raise
        last: dict[int, tuple[int, str]] = {}
        for message, (number, offset) in zip(messages, positions, strict=True):
            if offset < following.get(number, 0):
                self._lose(number, f"wrote at {offset}", following[number])
            following[number] = offset + 1
            last[number] = (offset, message.key)
        for number, (offset, key) in last.items():
            self._is_there(number, offset, encode_key(key))
        return positions

    def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        """See `EventLog.read_all`."""
        records = self._log.read_all(topic, start)
        return self._noted(records) if topic is IMAGES else records

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        """See `EventLog.bounds`."""
        if topic is not IMAGES:
            return await self._log.bounds(topic)
        if self._lost is not None:
            raise self._lost
        before = dict(self._ends)
        bounds = await self._log.bounds(topic)
        for number, (_, end) in bounds.items():
            if end < before.get(number, 0):
                self._lose(number, f"ends at {end}", before[number])
            self._ends[number] = max(end, self._ends.get(number, 0))
        return bounds

    async def is_ready(self) -> bool:
        """See `EventLog.is_ready`."""
        return await self._log.is_ready()

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._log.close()

    async def _noted(self, records: AsyncIterator[LogRecord]) -> AsyncIterator[LogRecord]:
        last: dict[int, LogRecord] = {}
        async for record in records:
            last[record.position.partition] = record
            yield record
        for number, record in last.items():
            self._is_there(number, record.position.offset, record.key)

    async def _look_again(self) -> None:
        """Whether what is known to be there still is.

        Records written without an answer can fill the place of lost ones, so that neither the end
        nor the next position tells. The newest record of each partition does.
        """
        newest, self._in_doubt = dict(self._newest), False
        try:
            await self.bounds(IMAGES)
            starts = {number: offset for number, (offset, _) in newest.items()}
            if not starts:
                return
            async for record in self._log.read_all(IMAGES, starts):
                number, offset = record.position
                # One that was compacted away is not there, and nothing else is in its place.
                if offset == starts[number] and record.key != newest[number][1]:
                    self._lose(number, f"has another record at {offset}", offset + 1)
        except AdapterError:
            self._in_doubt = True
            raise

    def _is_there(self, number: int, offset: int, key: bytes | None) -> None:
        if offset >= self._newest.get(number, (0, None))[0]:
            self._newest[number] = (offset, key)
        self._ends[number] = max(offset + 1, self._ends.get(number, 0))

    def _lose(self, number: int, found: str, end: int) -> None:
        # Kept, as whoever meets it may be long in coming to tell.
        self._lost = LogLost(
            f"partition {number} of {IMAGES.name} {found}, and held everything before {end}: "
            "what is known is read anew, and the rest published again"
        )
        raise self._lost
