"""Where the log of a partition lost its end, or was made anew, and the lake went on.

Offsets in the lake only ever rise. Those of the log begin again, or differ, when Kafka has lost
records that the lake holds: then an epoch begins, in which an offset in the lake is that of the
log plus `base`. Without such a loss there is one epoch, whose base is 0, and both are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from adapters.log.port import LogRecord, Position
from analytics.lake import Generation, Place

FOLDER: Final = "_epochs"


@dataclass(frozen=True, slots=True)
class Epoch:
    """From the offset `start` of the lake on, the log's offsets are lower by `base`."""

    base: int = 0
    start: int = 0

    @property
    def log_start(self) -> int:
        """The log's first offset when the epoch began."""
        return self.start - self.base

    def in_log(self, end: int) -> int:
        """The log's next offset, where the partition ends at `end` in the lake.

        That may be before the epoch: a rebuild ends at the last row that there is, and those before
        the epoch may be forgotten, or be of events that the log tells a second time.
        """
        return max(end, self.start) - self.base

    def in_lake(self, record: LogRecord) -> LogRecord:
        """The record under its offset in the lake."""
        if not self.base:
            return record
        partition, offset = record.position
        return record._replace(position=Position(partition, offset + self.base))


def epoch_of(generation: Generation, place: Place) -> Epoch:
    """The partition's present epoch. Blocks."""
    content = generation.lake.storage.read(_path(generation, place))
    if content is None:
        return Epoch()
    said = json.loads(content)
    return Epoch(int(said["base"]), int(said["start"]))


def begin_epoch(generation: Generation, place: Place, epoch: Epoch) -> None:
    """From now on the partition is in this epoch. Blocks; repeated, it changes nothing."""
    said = {"base": epoch.base, "start": epoch.start}
    generation.lake.storage.write(_path(generation, place), json.dumps(said).encode())


def _path(generation: Generation, place: Place) -> str:
    return f"{generation.name}/{FOLDER}/{place.topic}-{place.partition}.json"


def earlier_events(generation: Generation, topic: str) -> pa.Array | None:
    """Ids of the topic's events that were filed in earlier epochs; None if there were none. Blocks.

    The log may tell them again: what it kept of its former self, and what was restored to it.
    """
    starts: dict[int, int] = {}
    found: list[pa.ChunkedArray] = []
    for file in generation.snapshot(topic):
        number = file.place.partition
        if number not in starts:
            starts[number] = epoch_of(generation, file.place).start
        if file.first >= starts[number]:
            continue
        rows = generation.lake.storage.read_table(file.path, columns=["offset", "event_id"])
        rows = rows.filter(pc.less(rows["offset"], starts[number]))
        found.append(rows["event_id"].drop_null())
    if not any(starts.values()):
        return None
    chunks = [chunk for each in found for chunk in each.chunks]
    return pa.concat_arrays(chunks or [pa.array([], pa.string())])


def without_events(table: pa.Table, known: pa.Array | None) -> pa.Table:
    """The rows but for those of these events."""
    if known is None or len(known) == 0 or table.num_rows == 0:
        return table
    return table.filter(pc.invert(pc.is_in(table["event_id"], value_set=known)))
