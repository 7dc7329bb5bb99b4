"""Rebuild the lake from the log as a new generation, then switch readers and writers to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from adapters.log.port import EventLog, LogRecord
from analytics.columns import table_of
from analytics.epochs import Epoch, begin_epoch, earlier_events, without_events
from analytics.lake import TOPICS, Generation, Lake, LakePartition, PartitionEnd
from consumers.analytics.alignment import align
from schemas.topics import Topic

END_OF_LOG: Final = 2**62
"""Greater than every offset."""


@dataclass
class RebuildResult:
    """The result of a rebuild: records per topic."""

    read: dict[str, int] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    """Rows of the live lake whose records the log no longer holds (retention, compaction)."""


async def rebuild(log: EventLog, lake: Lake, *, batch_records: int = 50_000) -> RebuildResult:
    """Fill a new generation from the start of the log and make it the current one.

    Members of the analytics group go on meanwhile; each notices the new generation at its next
    flush and continues where that ends. Rows that only the live lake still holds are copied.

    Raises:
        Unavailable: Kafka or the storage does not answer; the live lake is unchanged.
    """
    report = RebuildResult()
    live = await asyncio.to_thread(lake.current)
    made = await asyncio.to_thread(lake.new_generation)
    try:
        for topic in TOPICS:
            await _rebuild_topic(log, topic, live, made, batch_records, report)
        await asyncio.to_thread(partial(lake.switch_to, made, instead_of=live))
    except BaseException:
        await asyncio.to_thread(lake.storage.remove, made.name, recursive=True)
        raise
    await asyncio.to_thread(lake.remove_replaced, live)
    return report


async def _rebuild_topic(
    log: EventLog,
    topic: Topic,
    live: Generation,
    made: Generation,
    batch_records: int,
    report: RebuildResult,
) -> None:
    bounds = await log.bounds(topic)
    aligned = await align(log, live, [(topic, number) for number in bounds])
    known = await asyncio.to_thread(earlier_events, live, topic.name)
    partitions = {
        number: _RebuiltPartition(topic, number, live, made, aligned[topic, number].epoch, known)
        for number in bounds
    }
    for number, (start, _) in bounds.items():
        await asyncio.to_thread(partitions[number].begin)
        await asyncio.to_thread(partitions[number].carry, start)
    waiting: dict[int, list[LogRecord]] = {number: [] for number in bounds}
    async for record in log.read_all(topic):
        gathered = waiting[record.position.partition]
        gathered.append(record)
        if len(gathered) >= batch_records:
            await asyncio.to_thread(partitions[record.position.partition].file, gathered)
            gathered.clear()
    for number, gathered in waiting.items():
        if gathered:
            await asyncio.to_thread(partitions[number].file, gathered)
        await asyncio.to_thread(partitions[number].carry, bounds[number][1])
    # Partitions that the log no longer has.
    for partition in {file.partition for file in live.files(topic.name)}:
        if partition.number not in partitions:
            gone = _RebuiltPartition(topic, partition.number, live, made, Epoch(), None)
            await asyncio.to_thread(gone.carry, END_OF_LOG)
            partitions[partition.number] = gone
    report.read[topic.name] = sum(part.read for part in partitions.values())
    report.carried[topic.name] = sum(part.carried for part in partitions.values())


class _RebuiltPartition:
    """One partition, rebuilt from the log and, where it has gaps, from the live lake."""

    def __init__(
        self,
        topic: Topic,
        number: int,
        live: Generation,
        made: Generation,
        epoch: Epoch,
        known: pa.Array | None,
    ) -> None:
        """`known` are the ids of events that earlier epochs hold."""
        self._topic = topic
        self._partition = LakePartition(topic.name, number)
        self._made = made
        self._live = live
        self._epoch = epoch
        self._known = known
        self._files = live.snapshot(topic.name, number)
        self._end = PartitionEnd()
        self.read = 0
        self.carried = 0

    def begin(self) -> None:
        """Begin the same epoch as in the live lake."""
        if self._epoch != Epoch():
            begin_epoch(self._made, self._partition, self._epoch)

    def carry(self, until: int) -> None:
        """Copy the live rows from the current end up to, not including, this log offset."""
        until += self._epoch.base
        for file in self._files:
            if file.last >= self._end.offset and file.first < until:
                rows = self._between(file.path, self._end.offset, until - 1)
                if rows.num_rows:
                    self._end = self._made.append_table(self._partition, self._end, rows)
                    self.carried += rows.num_rows

    def file(self, records: Sequence[LogRecord]) -> None:
        """Append these, and the live rows between them that the log no longer holds."""
        table = table_of(self._topic, [self._epoch.in_lake(record) for record in records])
        table = without_events(table, self._known)
        self.read += table.num_rows
        first, last = self._end.offset, records[-1].position.offset + self._epoch.base
        if table.num_rows < last - first + 1:
            lost = [
                rows.filter(pc.invert(pc.is_in(rows["offset"], value_set=table["offset"])))
                for file in self._files
                if file.last >= first and file.first <= last
                for rows in [self._between(file.path, first, last)]
            ]
            self.carried += sum(rows.num_rows for rows in lost)
            table = pa.concat_tables([table, *lost], promote_options="default")
            table = table.select(table_of(self._topic, []).schema.names).sort_by("offset")
        if table.num_rows:
            self._end = self._made.append_table(self._partition, self._end, table)

    def _between(self, path: str, first: int, last: int) -> pa.Table:
        table = self._live.lake.storage.read_table(path)
        inside = pc.and_(
            pc.greater_equal(table["offset"], first), pc.less_equal(table["offset"], last)
        )
        return table.filter(inside)
