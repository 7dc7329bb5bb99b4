"""Maps offsets of the log to offsets of the lake, across losses of the log.

Offsets in the lake only increase. If Kafka has lost records that the lake holds, the log's offsets
restart or differ. Then a new epoch begins, in which the lake's offset is the log's offset plus
`base`. Without a loss there is one epoch with base 0, and both offsets are equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from adapters.log.port import LogRecord, Position
from analytics.lake import Generation, LakePartition

FOLDER: Final = "_epochs"


@dataclass(frozen=True, slots=True)
class Epoch:
    """From the lake's offset `start` on, the log's offsets are lower by `base`."""

    base: int = 0
    start: int = 0

    @property
    def log_start(self) -> int:
        """The log's first offset when the epoch began."""
        return self.start - self.base

    def in_log(self, end: int) -> int:
        """The log's next offset, if the partition ends at `end` in the lake.

        `end` may be before the epoch: a rebuild ends at the last existing row, and later rows may
        have been forgotten, or be duplicates that the log holds again.
        """
        return max(end, self.start) - self.base

    def in_lake(self, record: LogRecord) -> LogRecord:
        """The record with its offset in the lake."""
        if not self.base:
            return record
        partition, offset = record.position
        return record._replace(position=Position(partition, offset + self.base))


def epoch_of(generation: Generation, partition: LakePartition) -> Epoch:
    """The present epoch of a partition. Blocks."""
    stored = generation.lake.storage.read(_path(generation, partition))
    if stored is None:
        return Epoch()
    content = json.loads(stored)
    return Epoch(int(content["base"]), int(content["start"]))


def begin_epoch(generation: Generation, partition: LakePartition, epoch: Epoch) -> None:
    """Begin an epoch in a partition. Blocks; idempotent."""
    content = {"base": epoch.base, "start": epoch.start}
    generation.lake.storage.write(_path(generation, partition), json.dumps(content).encode())


def _path(generation: Generation, partition: LakePartition) -> str:
    return f"{generation.name}/{FOLDER}/{partition.topic}-{partition.number}.json"


def earlier_events(generation: Generation, topic: str) -> pa.Array | None:
    """Ids of the topic's events that were written in earlier epochs; None without any. Blocks.

    The log may hold these events, because it did not lose them or they were restored to it.
    """
    starts: dict[int, int] = {}
    found: list[pa.ChunkedArray] = []
    for file in generation.snapshot(topic):
        number = file.partition.number
        if number not in starts:
            starts[number] = epoch_of(generation, file.partition).start
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
    """The rows, without those of these events."""
    if known is None or len(known) == 0 or table.num_rows == 0:
        return table
    return table.filter(pc.invert(pc.is_in(table["event_id"], value_set=known)))
