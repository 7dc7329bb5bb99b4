"""Whether the log still is the one that the lake was filled from, partition by partition.

An offset alone does not tell: a log that lost its end grows again, and one that was made anew
begins at 0. So the last rows of the lake are held against the records at their offsets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import pyarrow.compute as pc

from adapters.event_log import EventLog, LogRecord
from analytics.epochs import Epoch, begin_epoch, epoch_of
from analytics.lake import End, Generation, Place
from schemas.codec import InvalidEvent, decode
from schemas.topics import BY_NAME, Topic

logger = logging.getLogger(__name__)

LAST_ROWS: Final = 5
"""So many are compared; of a compacted topic some may be gone."""
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
        return self.end.offset - self.epoch.base


async def align(
    log: EventLog, generation: Generation, places: Sequence[tuple[Topic, int]]
) -> dict[tuple[Topic, int], Aligned]:
    """Where each of these continues; a new epoch is begun where the log is not the one before.

    Raises:
        Unavailable: the log or the lake does not answer.
    """
    found: dict[tuple[Topic, int], Aligned] = {}
    by_topic: dict[Topic, list[int]] = {}
    for topic, number in places:
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
    """The partitions whose log is not the one that was filed."""
    lost = set()
    to_compare: dict[int, dict[int, dict[str, Any]]] = {}
    for number, aligned in before.items():
        start, end = bounds.get(number, (0, 0))
        if aligned.log_offset > end:
            lost.add(number)
            continue
        rows = await asyncio.to_thread(_last_rows, generation, Place(topic.name, number), aligned)
        wanted = {offset: row for offset, row in rows.items() if start <= offset < end}
        if wanted:
            to_compare[number] = wanted
    if to_compare:
        async for record in log.read_all(topic, {n: min(w) for n, w in to_compare.items()}):
            number = record.position.partition
            left = to_compare.get(number)
            if left is None:
                continue
            row = left.pop(record.position.offset, None)
            if row is not None and not _same(topic, record, row):
                lost.add(number)
                left.clear()
            if not left or record.position.offset > max(left):
                del to_compare[number]
                if not to_compare:
                    break
    return lost


def _last_rows(generation: Generation, place: Place, aligned: Aligned) -> dict[int, dict[str, Any]]:
    """Offset in the log -> row, of the last ones that were filed in this epoch. Blocks."""
    files = generation.snapshot(place.topic, place.partition)
    for file in reversed(files):
        if file.last < aligned.epoch.start:
            break
        table = generation.lake.storage.read_table(file.path)
        table = table.filter(pc.greater_equal(table["offset"], aligned.epoch.start))
        if table.num_rows:
            rows = table.slice(max(0, table.num_rows - LAST_ROWS)).to_pylist()
            return {row["offset"] - aligned.epoch.base: row for row in rows}
    return {}


def _same(topic: Topic, record: LogRecord, row: Mapping[str, Any]) -> bool:
    if round(row["logged_at"].timestamp() * 1000) != record.timestamp_ms:
        return False
    try:
        event = decode(BY_NAME[topic.name].event, record.value)
    except InvalidEvent:
        return bool(row["raw"] == record.value)
    return bool(row["event_id"] == str(event.event_id))
