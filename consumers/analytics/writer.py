"""Records into the lake, each exactly once, however often a writer dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from adapters.errors import Unavailable
from adapters.log.port import EventLog, LogRecord, Partition
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

    The lake alone says how far a partition was read. A file is only written if the lake still ends
    where its records begin (`Generation.append`). So of two members that both believe they own a
    partition only one gets a file in, and the other continues after it.

    `add` and `flush` must not overlap.
    """

    def __init__(
        self, lake: Lake, log: EventLog, *, flush_records: int, flush_seconds: float
    ) -> None:
        """`log` is another connection to the log that is filed, to see that it is still the same.

        `flush_seconds` is the longest time that a record waits before it is due.
        """
        self._lake = lake
        self._log = log
        self._known: dict[Topic, pa.Array | None] = {}
        self._flush_records = flush_records
        self._flush_seconds = flush_seconds
        self._buffers: dict[Partition, _Buffer] = {}
        self._moved: dict[Partition, int] = {}
        self._waiting = 0
        self._oldest: float | None = None
        self._looked = 0.0
        self._generation = ""
        self._writing = asyncio.Lock()
        self.filed = 0

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that are ours."""
        return list(self._buffers)

    @property
    def waiting(self) -> int:
        """Records that are not filed yet."""
        return self._waiting

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """These partitions are ours now; the offset to continue at in each."""

        async with self._writing:
            found = await until_available(
                lambda: self._aligned(partitions), what="look where the lake ends"
            )
            self._forget_all()
            self._buffers = {
                (topic, number): _Buffer(topic, Place(topic.name, number), at.end, at.epoch)
                for (topic, number), at in found.items()
            }
        return {partition: at.log_offset for partition, at in found.items()}

    async def revoked(self) -> None:
        """File what waits: no partition is ours after this.

        What cannot be written now is read again by the next owner.
        """
        try:
            await self.flush()
        except Unavailable:
            logger.warning("%d records are read again by the next owner", self._waiting)
        async with self._writing:
            self._forget_all()
            self._buffers.clear()

    def add(self, records: Mapping[Partition, Sequence[LogRecord]]) -> None:
        """Take what was read next; partitions that were given away meanwhile are left out."""
        for partition, batch in records.items():
            # Whoever reads a partition that has moved has not been told yet.
            if not batch or partition in self._moved:
                continue
            if (buffer := self._buffers.get(partition)) is not None:
                buffer.records.extend(batch)
                self._waiting += len(batch)
                if self._oldest is None:
                    self._oldest = time.monotonic()

    @property
    def due_in(self) -> float:
        """Seconds until `flush` should be called; 0 if it should now."""
        if self._waiting >= self._flush_records:
            return 0.0
        since = self._looked if self._oldest is None else self._oldest
        return max(0.0, since + self._flush_seconds - time.monotonic())

    async def flush(self) -> dict[Partition, int]:
        """File everything that waits.

        Returns:
            The offset to continue at in each partition that has moved: somebody else filed its
            records, or the lake was rebuilt.

        Raises:
            Unavailable: the storage does not take them now; they are kept.
        """
        async with self._writing:
            await self._look()
            self._looked = time.monotonic()
            for partition, buffer in list(self._buffers.items()):
                if not buffer.records:
                    continue
                try:
                    buffer.end = await asyncio.to_thread(self._append, buffer)
                    self.filed += len(buffer.records)
                except Moved as news:
                    logger.warning("%s", news)
                    again = (await self._aligned([partition]))[partition]
                    buffer.end, buffer.epoch = again.end, again.epoch
                    self._moved[partition] = again.log_offset
                self._waiting -= len(buffer.records)
                buffer.records = []
            self._oldest = None
            moved, self._moved = self._moved, {}
        return moved

    def ends(self) -> dict[Partition, int]:
        """Each partition's offset after the last one that is filed."""
        return {
            partition: buffer.epoch.in_log(buffer.end.offset)
            for partition, buffer in self._buffers.items()
        }

    async def _look(self) -> None:
        """Whether the lake was rebuilt; what was filed in the former one may not be in it."""
        generation = await asyncio.to_thread(self._lake.current)
        if generation.name == self._generation:
            return
        found = await self._aligned(list(self._buffers))
        for partition, buffer in self._buffers.items():
            at = found[partition]
            if (at.end, at.epoch) != (buffer.end, buffer.epoch):
                self._waiting -= len(buffer.records)
                buffer.end, buffer.epoch, buffer.records = at.end, at.epoch, []
                self._moved[partition] = at.log_offset

    async def _aligned(self, partitions: Sequence[Partition]) -> dict[Partition, Aligned]:
        generation = await asyncio.to_thread(self._lake.current)
        found = await align(self._log, generation, partitions)
        for topic in {topic for topic, _ in partitions}:
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
        self._moved = {}
        self._waiting = 0
        self._oldest = None
