"""Records into the lake, each exactly once, however often a writer dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from adapters.errors import Unavailable
from adapters.log.port import EventLog, LogRecord
from adapters.retry import until_available
from analytics.epochs import Epoch, earlier_events, without_events
from analytics.lake import End, Lake, Moved, Place
from consumers.analytics.alignment import Aligned, align
from schemas.topics import Topic

logger = logging.getLogger(__name__)


@dataclass
class _Buffer:
    """What was read of one partition since `end`, the end of what is in the lake."""

    topic: Topic
    place: Place
    end: End
    epoch: Epoch
    records: list[LogRecord] = field(default_factory=list)


class LakeWriter:
    """Owns partitions, gathers their records, and files them in batches.

    The lake alone says how far a partition was read. A file is only written where the lake still
    ends where its records begin (`Generation.append`), so of two members that both believe they
    own a partition only one gets a file in, and the other one continues behind it.
    """

    def __init__(
        self, lake: Lake, log: EventLog, *, flush_records: int, flush_seconds: float
    ) -> None:
        """`log` is another connection to what is filed, to see whether it is what it was."""
        self._lake = lake
        self._log = log
        self._known: dict[Topic, pa.Array | None] = {}
        self._flush_records = flush_records
        self._flush_seconds = flush_seconds
        self._buffers: dict[tuple[Topic, int], _Buffer] = {}
        self._waiting = 0
        self._oldest: float | None = None
        self._looked = 0.0
        self._generation = ""
        self._writing = asyncio.Lock()
        self.filed = 0

    @property
    def places(self) -> list[tuple[Topic, int]]:
        """The partitions that are ours."""
        return list(self._buffers)

    async def assigned(
        self, places: Sequence[tuple[Topic, int]]
    ) -> Mapping[tuple[Topic, int], int]:
        """See `PartitionOwner.assigned`."""

        async with self._writing:
            found = await until_available(
                lambda: self._aligned(places), what="look where the lake ends"
            )
            self._forget_all()
            self._buffers = {
                (topic, number): _Buffer(topic, Place(topic.name, number), at.end, at.epoch)
                for (topic, number), at in found.items()
            }
        return {place: at.log_offset for place, at in found.items()}

    async def revoked(self, places: Sequence[tuple[Topic, int]]) -> None:
        """See `PartitionOwner.revoked`. What cannot be written now is the next owner's to read."""
        try:
            await self.flush()
        except Unavailable:
            logger.warning("%d records are read again by the next owner", self._waiting)
        async with self._writing:
            self._forget_all()
            self._buffers.clear()

    def add(self, read: Mapping[tuple[Topic, int], Sequence[LogRecord]]) -> None:
        """Take what was read next; partitions that were given away meanwhile are left out."""
        for place, records in read.items():
            if (buffer := self._buffers.get(place)) is not None and records:
                buffer.records.extend(records)
                self._waiting += len(records)
                if self._oldest is None:
                    self._oldest = time.monotonic()

    @property
    def due_in(self) -> float:
        """Seconds until `flush` should be called; 0 if it should now."""
        if self._waiting >= self._flush_records:
            return 0.0
        since = self._looked if self._oldest is None else self._oldest
        return max(0.0, since + self._flush_seconds - time.monotonic())

    async def flush(self) -> dict[tuple[Topic, int], int]:
        """File everything that waits.

        Returns:
            (topic, partition) -> where to continue, for those that have moved: somebody else
            filed the records, or the lake was rebuilt.

        Raises:
            Unavailable: the storage does not take them now; they are kept.
        """
        async with self._writing:
            moved = await self._look()
            self._looked = time.monotonic()
            for place, buffer in list(self._buffers.items()):
                if not buffer.records:
                    continue
                try:
                    buffer.end = await asyncio.to_thread(self._append, buffer)
                    self.filed += len(buffer.records)
                except Moved as news:
                    logger.warning("%s", news)
                    again = (await self._aligned([place]))[place]
                    buffer.end, buffer.epoch = again.end, again.epoch
                    moved[place] = again.log_offset
                self._waiting -= len(buffer.records)
                buffer.records = []
            self._oldest = None
        return moved

    def ends(self) -> dict[tuple[Topic, int], int]:
        """(topic, partition) -> the offset after the last one that is filed."""
        return {
            place: buffer.epoch.in_log(buffer.end.offset) for place, buffer in self._buffers.items()
        }

    async def _look(self) -> dict[tuple[Topic, int], int]:
        """Whether the lake was rebuilt; what was filed in the former one may not be in it."""
        generation = await asyncio.to_thread(self._lake.current)
        if generation.name == self._generation:
            return {}
        moved: dict[tuple[Topic, int], int] = {}
        found = await self._aligned(list(self._buffers))
        for place, buffer in self._buffers.items():
            at = found[place]
            if (at.end, at.epoch) != (buffer.end, buffer.epoch):
                self._waiting -= len(buffer.records)
                buffer.end, buffer.epoch, buffer.records = at.end, at.epoch, []
                moved[place] = at.log_offset
        return moved

    async def _aligned(
        self, places: Sequence[tuple[Topic, int]]
    ) -> dict[tuple[Topic, int], Aligned]:
        generation = await asyncio.to_thread(self._lake.current)
        found = await align(self._log, generation, places)
        for topic in {topic for topic, _ in places}:
            self._known[topic] = await asyncio.to_thread(earlier_events, generation, topic.name)
        self._generation = generation.name
        return found

    def _append(self, buffer: _Buffer) -> End:
        generation = self._lake.current()
        try:
            return generation.append(
                buffer.topic,
                buffer.place,
                buffer.end,
                [buffer.epoch.in_lake(record) for record in buffer.records],
                lambda rows: without_events(rows, self._known.get(buffer.topic)),
            )
        except Unavailable:
            # Some days of it may be filed: the next try begins where the lake ends.
            end = generation.end(buffer.place)
            next_offset = buffer.epoch.in_log(end.offset)
            kept = [record for record in buffer.records if record.position.offset >= next_offset]
            self._waiting -= len(buffer.records) - len(kept)
            buffer.end, buffer.records = end, kept
            raise

    def _forget_all(self) -> None:
        self._waiting = 0
        self._oldest = None
