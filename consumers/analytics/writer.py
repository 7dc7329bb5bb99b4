"""Write records to the lake exactly once, even if writers crash."""

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
from analytics.lake import Lake, LakePartition, PartitionEnd, WriteConflict
from consumers.analytics.alignment import Alignment, align
from schemas.topics import Topic

logger = logging.getLogger(__name__)


@dataclass
class _Buffer:
    """Records of one partition read since `end`, the partition's end in the lake."""

    topic: Topic
    partition: LakePartition
    end: PartitionEnd
    epoch: Epoch
    records: list[LogRecord] = field(default_factory=list)


class LakeWriter:
    """Owns partitions, buffers their records, and files them in batches.

    Only the lake defines how far a partition was read. A file is written only if the lake still
    ends where the file's records begin (`Generation.append`). So if two members both believe they
    own a partition, one of them writes the file and the other continues after it.

    `add` and `flush` must not overlap.
    """

    def __init__(
        self, lake: Lake, log: EventLog, *, flush_records: int, flush_seconds: float
    ) -> None:
        """`log` is a second connection, to check that the log is still the one filed before.

        `flush_seconds` is the longest time that a record waits before a flush is due.
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
        self._checked = 0.0
        self._generation = ""
        self._writing = asyncio.Lock()
        self.filed = 0

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that this writer owns."""
        return list(self._buffers)

    @property
    def waiting(self) -> int:
        """Number of records that are not filed yet."""
        return self._waiting

    async def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Take over these partitions; returns the offset to continue at in each."""

        async with self._writing:
            found = await until_available(
                lambda: self._align(partitions), what="find the end of the lake"
            )
            self._forget_all()
            self._buffers = {
                (topic, number): _Buffer(topic, LakePartition(topic.name, number), at.end, at.epoch)
                for (topic, number), at in found.items()
            }
        return {partition: at.log_offset for partition, at in found.items()}

    async def revoked(self) -> None:
        """File what is buffered, then give up all partitions.

        Records that cannot be written now are read again by the next owner.
        """
        try:
            await self.flush()
        except Unavailable:
            logger.warning("%d records will be read again by the next owner", self._waiting)
        async with self._writing:
            self._forget_all()
            self._buffers.clear()

    def add(self, records: Mapping[Partition, Sequence[LogRecord]]) -> None:
        """Buffer records that were read; ignores partitions that were given up meanwhile."""
        for partition, batch in records.items():
            # The reader of a moved partition does not know its new offset yet.
            if not batch or partition in self._moved:
                continue
            if (buffer := self._buffers.get(partition)) is not None:
                buffer.records.extend(batch)
                self._waiting += len(batch)
                if self._oldest is None:
                    self._oldest = time.monotonic()

    @property
    def due_in(self) -> float:
        """Seconds until the next `flush` is due; 0 if it is due now."""
        if self._waiting >= self._flush_records:
            return 0.0
        since = self._checked if self._oldest is None else self._oldest
        return max(0.0, since + self._flush_seconds - time.monotonic())

    async def flush(self) -> dict[Partition, int]:
        """File all buffered records.

        Returns:
            The offset to continue at in each partition that has moved: another member filed its
            records, or the lake was rebuilt.

        Raises:
            Unavailable: the storage cannot be written now; the records stay buffered.
        """
        async with self._writing:
            await self._check_generation()
            self._checked = time.monotonic()
            for partition, buffer in list(self._buffers.items()):
                if not buffer.records:
                    continue
                try:
                    buffer.end = await asyncio.to_thread(self._append, buffer)
                    self.filed += len(buffer.records)
                except WriteConflict as moved_by_other:
                    logger.warning("%s", moved_by_other)
                    again = (await self._align([partition]))[partition]
                    buffer.end, buffer.epoch = again.end, again.epoch
                    self._moved[partition] = again.log_offset
                self._waiting -= len(buffer.records)
                buffer.records = []
            self._oldest = None
            moved, self._moved = self._moved, {}
        return moved

    def ends(self) -> dict[Partition, int]:
        """Partition -> the log offset after its last filed record."""
        return {
            partition: buffer.epoch.in_log(buffer.end.offset)
            for partition, buffer in self._buffers.items()
        }

    async def _check_generation(self) -> None:
        """Realign if the lake was rebuilt: the new generation may lack what was filed before."""
        generation = await asyncio.to_thread(self._lake.current)
        if generation.name == self._generation:
            return
        found = await self._align(list(self._buffers))
        for partition, buffer in self._buffers.items():
            at = found[partition]
            if (at.end, at.epoch) != (buffer.end, buffer.epoch):
                self._waiting -= len(buffer.records)
                buffer.end, buffer.epoch, buffer.records = at.end, at.epoch, []
                self._moved[partition] = at.log_offset

    async def _align(self, partitions: Sequence[Partition]) -> dict[Partition, Alignment]:
        generation = await asyncio.to_thread(self._lake.current)
        found = await align(self._log, generation, partitions)
        for topic in {topic for topic, _ in partitions}:
            self._known[topic] = await asyncio.to_thread(earlier_events, generation, topic.name)
        self._generation = generation.name
        return found

    def _append(self, buffer: _Buffer) -> PartitionEnd:
        generation = self._lake.current()
        try:
            return generation.append(
                buffer.topic,
                buffer.partition,
                buffer.end,
                [buffer.epoch.in_lake(record) for record in buffer.records],
                lambda rows: without_events(rows, self._known.get(buffer.topic)),
            )
        except Unavailable:
            # The files of some days may be written: the next attempt starts where the lake ends.
            end = generation.end(buffer.partition)
            next_offset = buffer.epoch.in_log(end.offset)
            kept = [record for record in buffer.records if record.position.offset >= next_offset]
            self._waiting -= len(buffer.records) - len(kept)
            buffer.end, buffer.records = end, kept
            raise

    def _forget_all(self) -> None:
        self._moved = {}
        self._waiting = 0
        self._oldest = None
