"""Whether the log is still the one that the lake was filled from, partition by partition.

An offset alone does not tell: a log that lost its end grows again, and one that was made anew
begins at 0. So the last rows of the lake are compared with the records at their offsets.
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
from analytics.lake import End, Generation, Place
from analytics.last_records import identity, last_records
from schemas.topics import Topic

logger = logging.getLogger(__name__)

RESTORE: Final = "_restore"
"""A folder of the lake: topics that have lost events which the lake still holds."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Where a partition continues, in the lake; and its epoch, which leads to the log's offset."""

    end: End
    epoch: Epoch

    @property
    def log_offset(self) -> int:
        """The next offset to be read of the log."""
        return self.epoch.in_log(self.end.offset)


async def align(
    log: EventLog, generation: Generation, partitions: Sequence[Partition]
) -> dict[Partition, Aligned]:
    """Where each of these continues; a new epoch is begun where the log is not the one before.

    Raises:
        Unavailable: the log or the lake does not answer.
    """
    found: dict[Partition, Aligned] = {}
    by_topic: dict[Topic, list[int]] = {}
    for topic, number in partitions:
        by_topic.setdefault(topic, []).append(number)
    for topic, numbers in by_topic.items():
        before = {n: await asyncio.to_thread(_now, generation, topic, n) for n in numbers}
        bounds = await log.bounds(topic)
        lost = await _lost(log, generation, topic, before, bounds)
        for number, aligned in before.items():
            if number in lost:
                start = bounds[number][0] if number in bounds else 0
                epoch = Epoch(aligned.end.offset - start, aligned.end.offset)
                await asyncio.to_thread(_begin, generation, Place(topic.name, number), epoch)
                aligned = Aligned(aligned.end, epoch)
            found[topic, number] = aligned
    return found


def _now(generation: Generation, topic: Topic, number: int) -> Aligned:
    place = Place(topic.name, number)
    return Aligned(generation.end(place), epoch_of(generation, place))


def _begin(generation: Generation, place: Place, epoch: Epoch) -> None:
    logger.error(
        "%s-%d is not the log that was filed before: its events are filed behind those that only "
        "the lake has",
        place.topic,
        place.partition,
    )
    # First, so that a crash in between restores too often rather than never.
    # Each under a name of its own: whoever restores removes only those it saw before.
    generation.lake.storage.write(f"{RESTORE}/{place.topic}~{uuid4().hex}", b"")
    begin_epoch(generation, place, epoch)


async def _lost(
    log: EventLog,
    generation: Generation,
    topic: Topic,
    before: Mapping[int, Aligned],
    bounds: Mapping[int, tuple[int, int]],
) -> set[int]:
    """The partitions whose log is not the one that was filed before."""
    lost = set()
    to_compare: dict[int, dict[int, tuple[int, str]]] = {}
    for number, aligned in before.items():
        start, end = bounds.get(number, (0, 0))
        # A log's beginning never goes back.
        if aligned.log_offset > end or start < aligned.epoch.log_start:
            lost.add(number)
            continue
        filed = await asyncio.to_thread(_last_filed, generation, Place(topic.name, number), aligned)
        wanted = {offset: told for offset, told in filed.items() if start <= offset < end}
        if wanted:
            to_compare[number] = wanted
    if to_compare:
        async for record in log.read_all(topic, {n: min(w) for n, w in to_compare.items()}):
            number = record.position.partition
            left = to_compare.get(number)
            if left is None:
                continue
            told = left.pop(record.position.offset, None)
            if told is not None and told != _told(topic, record):
                lost.add(number)
                left.clear()
            if not left or record.position.offset > max(left):
                del to_compare[number]
                if not to_compare:
                    break
    return lost


def _last_filed(
    generation: Generation, place: Place, aligned: Aligned
) -> dict[int, tuple[int, str]]:
    """Offset in the log -> time and identity, of the last that were filed in this epoch. Blocks."""
    epoch = aligned.epoch
    for file in reversed(generation.snapshot(place.topic, place.partition)):
        if file.last < epoch.start:
            break
        told = last_records(generation.lake.storage, file.path)
        ours = {n - epoch.base: what for n, what in told.items() if n >= epoch.start}
        if ours:
            return ours
    return {}


def _told(topic: Topic, record: LogRecord) -> tuple[int, str]:
    """The same of a record of the log."""
    (row,) = table_of(topic, [record]).select(["event_id", "raw"]).to_pylist()
    return record.timestamp_ms, identity(row)
