"""An event log that notices when `images` has lost its newest records.

A Kafka broker that loses power may lose records that it has acknowledged. Later records then take
the offsets of the lost ones, and soon the log is as long as before. Every answer of the broker is
therefore checked: records that were read or acknowledged must exist, and later records must have
higher offsets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from adapters.errors import AdapterError
from adapters.log.port import EventLog, LogLost, LogRecord, Message, Position
from schemas.codec import encode_key
from schemas.topics import IMAGES, Topic


class LossDetectingLog:
    """An `EventLog` for all sources together. Any call may raise `LogLost`.

    Several sources may publish at once, and answers arrive in any order. An answer is therefore
    checked against the offsets that were known when its request was sent.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._ends: dict[int, int] = {}
        self._newest: dict[int, tuple[int, bytes | None]] = {}
        self._uncertain = False
        self._lost: LogLost | None = None

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """See `EventLog.publish`."""
        if topic is not IMAGES:
            return await self._log.publish(topic, messages)
        if self._uncertain:
            await self._verify()
        next_offsets = dict(self._ends)
        try:
            positions = await self._log.publish(topic, messages)
        except AdapterError:
            # Some records may have been written, at unknown offsets.
            self._uncertain = True
            raise
        last: dict[int, tuple[int, str]] = {}
        for message, (number, offset) in zip(messages, positions, strict=True):
            if offset < next_offsets.get(number, 0):
                self._raise_lost(number, f"wrote at {offset}", next_offsets[number])
            next_offsets[number] = offset + 1
            last[number] = (offset, message.key)
        for number, (offset, key) in last.items():
            self._record(number, offset, encode_key(key))
        return positions

    def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        """See `EventLog.read_all`."""
        records = self._log.read_all(topic, start)
        return self._track(records) if topic is IMAGES else records

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
                self._raise_lost(number, f"ends at {end}", before[number])
            self._ends[number] = max(end, self._ends.get(number, 0))
        return bounds

    async def is_ready(self) -> bool:
        """See `EventLog.is_ready`."""
        return await self._log.is_ready()

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._log.close()

    async def _track(self, records: AsyncIterator[LogRecord]) -> AsyncIterator[LogRecord]:
        last: dict[int, LogRecord] = {}
        async for record in records:
            last[record.position.partition] = record
            yield record
        for number, record in last.items():
            self._record(number, record.position.offset, record.key)

    async def _verify(self) -> None:
        """Check that the newest known record of each partition is still there.

        Records whose write was never answered may have taken the offsets of lost ones. Then neither
        the end of the log nor the next offset shows the loss.
        """
        newest, self._uncertain = dict(self._newest), False
        try:
            await self.bounds(IMAGES)
            starts = {number: offset for number, (offset, _) in newest.items()}
            if not starts:
                return
            async for record in self._log.read_all(IMAGES, starts):
                number, offset = record.position
                # The offset of a record that was compacted away is empty.
                if offset == starts[number] and record.key != newest[number][1]:
                    self._raise_lost(number, f"has another record at {offset}", offset + 1)
        except AdapterError:
            self._uncertain = True
            raise

    def _record(self, number: int, offset: int, key: bytes | None) -> None:
        if offset >= self._newest.get(number, (0, None))[0]:
            self._newest[number] = (offset, key)
        self._ends[number] = max(offset + 1, self._ends.get(number, 0))

    def _raise_lost(self, number: int, found: str, end: int) -> None:
        # Stored for all later calls: the source that notices it may take long to fail.
        self._lost = LogLost(
            f"partition {number} of {IMAGES.name} {found}, but it had reached {end}: the known "
            "pictures are read again, and missing ones are published again"
        )
        raise self._lost
