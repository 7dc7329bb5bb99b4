"""Whether the log is still the one that the lake was filled from, for each partition.

An offset alone does not show that: a log that lost its end grows again, and a recreated one starts
at 0. So the last rows of the lake are compared with the records at their offsets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from adapters.log.port import EventLog, LogRecord, Partition
from analytics.columns import table_of
from analytics.epochs import Epoch, begin_epoch, epoch_of
from analytics.lake import Generation, LakePartition, PartitionEnd
from analytics.last_records import identity, last_records
from schemas.topics import Topic

logger = logging.getLogger(__name__)

RESTORE_FOLDER: Final = "_restore"
"""Folder of the lake that names the topics that lost events which the lake still holds."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The end of a partition in the lake, and its epoch, which maps it to an offset of the log."""

    end: PartitionEnd
    epoch: Epoch

    @property
    def log_offset(self) -> int:
        """The next offset to read from the log."""
        return self.epoch.in_log(self.end.offset)


async def align(
    log: EventLog, generation: Generation, partitions: Sequence[Partition]
) -> dict[Partition, Alignment]:
    """Where each partition continues; begins a new epoch where the log is not the one filed before.

    Raises:
        Unavailable: the log or the lake does not answer.
    """
    found: dict[Partition, Alignment] = {}
    by_topic: dict[Topic, list[int]] = {}
    for topic, number in partitions:
        by_topic.setdefault(topic, []).append(number)
    for topic, numbers in by_topic.items():
        before = {
            n: await asyncio.to_thread(_read_alignment, generation, topic, n) for n in numbers
        }
        bounds = await log.bounds(topic)
        lost = await _find_lost(log, generation, topic, before, bounds)
        for number, aligned in before.items():
            if number in lost:
                start = bounds[number][0] if number in bounds else 0
                epoch = Epoch(aligned.end.offset - start, aligned.end.offset)
                await asyncio.to_thread(
                    _start_epoch, generation, LakePartition(topic.name, number), epoch
                )
                aligned = Alignment(aligned.end, epoch)
            found[topic, number] = aligned
    return found


def _read_alignment(generation: Generation, topic: Topic, number: int) -> Alignment:
    partition = LakePartition(topic.name, number)
    return Alignment(generation.end(partition), epoch_of(generation, partition))


def _start_epoch(generation: Generation, partition: LakePartition, epoch: Epoch) -> None:
    logger.error(
        "%s-%d is not the log that was filed before: its events are filed after those that only "
        "the lake still holds",
        partition.topic,
        partition.number,
    )
    # Written first, so that a crash in between restores twice instead of never. Each marker has a
    # unique name: a restore removes only the markers that it has listed before.
    generation.lake.storage.write(f"{RESTORE_FOLDER}/{partition.topic}~{uuid4().hex}", b"")
    begin_epoch(generation, partition, epoch)


async def _find_lost(
    log: EventLog,
    generation: Generation,
    topic: Topic,
    before: Mapping[int, Alignment],
    bounds: Mapping[int, tuple[int, int]],
) -> set[int]:
    """The partitions whose log is not the one that was filed before."""
    lost = set()
    to_compare: dict[int, dict[int, tuple[int, str]]] = {}
    for number, aligned in before.items():
        start, end = bounds.get(number, (0, 0))
        # The start offset of a log never decreases.
        if aligned.log_offset > end or start < aligned.epoch.log_start:
            lost.add(number)
            continue
        filed = await asyncio.to_thread(
            _read_last_filed, generation, LakePartition(topic.name, number), aligned
        )
        wanted = {offset: row for offset, row in filed.items() if start <= offset < end}
        if wanted:
            to_compare[number] = wanted
    if to_compare:
        async for record in log.read_all(topic, {n: min(w) for n, w in to_compare.items()}):
            number = record.position.partition
            left = to_compare.get(number)
            if left is None:
                continue
            expected = left.pop(record.position.offset, None)
            if expected is not None and expected != _fingerprint(topic, record):
                lost.add(number)
                left.clear()
            if not left or record.position.offset > max(left):
                del to_compare[number]
                if not to_compare:
                    break
    return lost


def _read_last_filed(
    generation: Generation, partition: LakePartition, aligned: Alignment
) -> dict[int, tuple[int, str]]:
    """Log offset -> (time in ms, identity) of the last rows filed in this epoch. Blocks."""
    epoch = aligned.epoch
    for file in reversed(generation.snapshot(partition.topic, partition.number)):
        if file.last < epoch.start:
            break
        rows = last_records(generation.lake.storage, file.path)
        filed = {n - epoch.base: row for n, row in rows.items() if n >= epoch.start}
        if filed:
            return filed
    return {}


def _fingerprint(topic: Topic, record: LogRecord) -> tuple[int, str]:
    """(time in ms, identity) of a record of the log, to compare with `_read_last_filed`."""
    (row,) = table_of(topic, [record]).select(["event_id", "raw"]).to_pylist()
    return record.timestamp_ms, identity(row)
