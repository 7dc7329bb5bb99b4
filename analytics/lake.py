"""The event lake: Parquet files whose names state which records they hold.

    CURRENT                                       name of the generation in use
    <generation>/topic=searches/date=2026-01-05/searches-3-100-199.parquet

A file holds the records of one partition from its first to its last offset, inclusive. Ranges never
overlap partially: if one lies within another, compaction has merged that file, and readers ignore
it (`snapshot`). The date is that of Kafka's timestamp in UTC and never goes back within a
partition. A flush around midnight is therefore split once, in offset order: after a crash between
its two files, the lake ends with the first.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.errors import Unavailable
from adapters.log.port import LogRecord
from analytics.columns import schema_of, table_of
from analytics.last_records import with_last_records
from analytics.storage import Storage
from schemas.topics import FEEDBACK, IMAGES_DLQ, IMAGES_INDEXED, MODELS, SEARCHES, Topic

TOPICS: Final = (SEARCHES, FEEDBACK, IMAGES_INDEXED, IMAGES_DLQ, MODELS)
"""The topics that the lake holds."""

POINTER: Final = "CURRENT"
"""File that names the generation in use."""
FORGOTTEN: Final = "_forgotten"
"""Folder of the requests to forget."""
EMPTY: Final = "date=1970-01-01/empty.parquet"
"""An empty file per topic, so that views have columns before the first event."""

ABANDONED: Final = timedelta(days=2)
"""Unfinished rebuilds older than this count as interrupted."""
_EPOCH: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000
_NAME = re.compile(r"-(?P<partition>\d+)-(?P<first>\d+)-(?P<last>\d+)\.parquet$")


@dataclass(frozen=True, slots=True, order=True)
class LakePartition:
    """A partition of a topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of the lake; `path` is relative to the lake."""

    partition: LakePartition
    date: date
    first: int
    last: int
    path: str


@dataclass(frozen=True, slots=True)
class PartitionEnd:
    """The end of a partition: its next offset, and the earliest date for it."""

    offset: int = 0
    date: date = _EPOCH


class WriteConflict(Exception):
    """The partition does not end where its writer expected: another writer or a rebuild wrote."""

    def __init__(self, partition: LakePartition, expected: int, end: PartitionEnd) -> None:
        super().__init__(f"{partition} continues at {end.offset}, not at {expected}")
        self.end = end


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A request to delete the rows of these searches and clients."""

    searches: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()

    def without(self, table: pa.Table) -> pa.Table:
        """The rows that are not to be deleted."""
        for column, values in (("search_id", self.searches), ("client", self.clients)):
            if values and column in table.schema.names:
                named = pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string()))
                table = table.filter(pc.invert(named))
        if self.searches and table.num_rows:
            # Rows that are not valid events are identified by their key.
            named = pc.is_in(table["key"], value_set=pa.array(sorted(self.searches), pa.string()))
            table = table.filter(pc.invert(named))
        return table


@dataclass
class Lake:
    """The lake at `url`. All methods block; none keeps files open."""

    url: str
    storage: Storage = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Storage(self.url)

    def current(self) -> Generation:
        """The generation in use; creates the first one if there is none."""
        if (name := self._current_name()) is None:
            with self.storage.locked("lake"):
                if (name := self._current_name()) is None:
                    generation = self.new_generation()
                    self.switch_to(generation)
                    return generation
        return Generation(self, name)

    def existing(self) -> Generation | None:
        """The generation in use; None if nothing was ever written."""
        name = self._current_name()
        return None if name is None else Generation(self, name)

    def _current_name(self) -> str | None:
        content = self.storage.read(POINTER)
        return content.decode().strip() if content else None

    def new_generation(self) -> Generation:
        """Create an empty generation, which is not in use yet."""
        generation = Generation(self, f"g-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}")
        for topic in TOPICS:
            path = f"{generation.name}/topic={topic.name}/{EMPTY}"
            self.storage.write_table(path, schema_of(topic).empty_table())
        return generation

    def switch_to(self, generation: Generation, *, instead_of: Generation | None = None) -> None:
        """Make this generation the one in use, atomically.

        Raises:
            Unavailable: `instead_of` is not in use any more. Nothing was changed.
        """
        with self.storage.locked("switch"):
            if instead_of is not None and self._current_name() != instead_of.name:
                raise Unavailable("another process has rebuilt the lake meanwhile")
            self.storage.write(POINTER, f"{generation.name}\n".encode())

    def remove_replaced(self, generation: Generation, *, now: datetime | None = None) -> None:
        """Delete a generation that is no longer in use, and the remains of interrupted rebuilds.

        A generation that is still being built stays: one begun less than `ABANDONED` before `now`.
        """
        # Wait for running writers: each holds the lock of its partition.
        for name in self.storage.names("_locks"):
            with self.storage.locked(name.removesuffix(".lock")):
                pass
        used = self.current().name
        before = f"g-{(now or datetime.now(UTC)) - ABANDONED:%Y%m%dT%H%M%S}"
        for name in self.storage.names(""):
            replaced = name == generation.name or (name.startswith("g-") and name < before)
            if replaced and name != used:
                self.storage.remove(name, recursive=True)

    def forgotten(self) -> ForgetRequest:
        """All requests to forget, of all processes, as one."""
        searches: set[str] = set()
        clients: set[str] = set()
        for name in self.storage.names(FORGOTTEN):
            request = json.loads(self.storage.read(f"{FORGOTTEN}/{name}") or b"{}")
            searches.update(request.get("searches", ()))
            clients.update(request.get("clients", ()))
        return ForgetRequest(frozenset(searches), frozenset(clients))

    def add_forget_request(self, wanted: ForgetRequest) -> None:
        """Store a request, which all writers and rebuilds apply from then on."""
        request = {"searches": sorted(wanted.searches), "clients": sorted(wanted.clients)}
        self.storage.write(f"{FORGOTTEN}/{uuid4().hex}.json", json.dumps(request).encode())

    def write_rows(self, path: str, table: pa.Table) -> int:
        """Write rows, without those that are forgotten by the time the file exists.

        Returns:
            Number of rows written.
        """
        return self._write(path, table.schema, [table], lambda: [table])

    def merge(self, path: str, merged: Sequence[str]) -> int:
        """Write the rows of these files into one, in this order; see `write_rows`.

        It has the metadata of the last file, as it ends with the same records.
        """
        schemas = [self.storage.read_schema(each) for each in merged]
        schema = pa.unify_schemas(schemas, promote_options="default")
        schema = schema.with_metadata(schemas[-1].metadata)
        rows = itertools.chain.from_iterable(map(self.storage.read_pieces, merged))
        # Once it is written, others may remove the merged files.
        return self._write(path, schema, rows, lambda: self.storage.read_pieces(path))

    def _write(
        self,
        path: str,
        schema: pa.Schema,
        pieces: Iterable[pa.Table],
        again: Callable[[], Iterable[pa.Table]],
    ) -> int:
        """The only way to write rows; `again` returns them after they were written.

        An object store has no locks, so another process may forget rows between our reading and
        writing. It stores its request first and then deletes from existing files. So either we
        see the request when we check after writing, or it sees our file.
        """
        forgotten = self.forgotten()
        while True:
            rows = self.storage.write_pieces(path, schema, map(forgotten.without, pieces))
            now = self.forgotten()
            if now == forgotten:
                return rows
            forgotten, pieces = now, again()


@dataclass(frozen=True, slots=True)
class Generation:
    """One complete set of files; rebuilds create new ones."""

    lake: Lake
    name: str

    def files(self, topic: str, partition: int | None = None) -> list[DataFile]:
        """All files of the topic, including those that compaction has merged."""
        folder = f"{self.name}/topic={topic}"
        return [
            file
            for day in self.lake.storage.names(folder)
            for file in self._files_of(topic, day)
            if partition is None or file.partition.number == partition
        ]

    def _files_of(self, topic: str, day: str) -> Iterator[DataFile]:
        if not day.startswith("date="):
            return
        folder = f"{self.name}/topic={topic}/{day}"
        for name in self.lake.storage.names(folder):
            if found := _NAME.search(name):
                yield DataFile(
                    LakePartition(topic, int(found["partition"])),
                    date.fromisoformat(day.removeprefix("date=")),
                    int(found["first"]),
                    int(found["last"]),
                    f"{folder}/{name}",
                )

    def snapshot(self, topic: str, partition: int | None = None) -> list[DataFile]:
        """The files that together hold each record once, ordered by partition and offset."""
        return uncovered(self.files(topic, partition))

    def end(self, partition: LakePartition) -> PartitionEnd:
        """The present end of the partition."""
        days = self.lake.storage.names(f"{self.name}/topic={partition.topic}")
        for day in sorted(days, reverse=True):
            # Dates never go back within a partition, so the newest one has the last offset.
            ours = [f for f in self._files_of(partition.topic, day) if f.partition == partition]
            if ours:
                last = max(ours, key=lambda file: file.last)
                return PartitionEnd(last.last + 1, last.date)
        return PartitionEnd()

    def append(
        self,
        topic: Topic,
        partition: LakePartition,
        begin: PartitionEnd,
        records: Sequence[LogRecord],
        keep: Callable[[pa.Table], pa.Table] | None = None,
    ) -> PartitionEnd:
        """Write the records that follow `begin`, if the partition still ends there.

        `keep` may drop rows that another file holds; the file's range still covers them.

        Returns:
            The new end of the partition.

        Raises:
            WriteConflict: the partition does not end at `begin`. Nothing was written.
            Unavailable: the storage failed. Some of the days may be written.
        """
        table = table_of(topic, records)
        return self.append_table(partition, begin, table, keep, must_be_current=True)

    def append_table(
        self,
        partition: LakePartition,
        begin: PartitionEnd,
        table: pa.Table,
        keep: Callable[[pa.Table], pa.Table] | None = None,
        *,
        must_be_current: bool = False,
    ) -> PartitionEnd:
        """As `append`, for a table in offset order.

        With `must_be_current`, raises `WriteConflict` also if a rebuild has replaced this
        generation.
        """
        with self.lake.storage.locked(f"{partition.topic}-{partition.number}"):
            if must_be_current and (used := self.lake.current()).name != self.name:
                raise WriteConflict(partition, begin.offset, used.end(partition))
            if (end := self.end(partition)).offset != begin.offset:
                raise WriteConflict(partition, begin.offset, end)
            first = begin.offset
            for day, piece in by_date(table, begin.date):
                last = piece["offset"][-1].as_py()
                # The file covers a gap in the log: its range begins at the end of the previous one,
                # whatever its first record's offset.
                path = self.path_of(partition, day, first, last)
                piece = with_last_records(piece)
                self.lake.write_rows(path, piece if keep is None else keep(piece))
                first, end = last + 1, PartitionEnd(last + 1, day)
            return end

    def path_of(self, partition: LakePartition, day: date, first: int, last: int) -> str:
        """The path of the file with this range."""
        name = f"{partition.topic}-{partition.number}-{first}-{last}.parquet"
        return f"{self.name}/topic={partition.topic}/date={day.isoformat()}/{name}"


def by_date(table: pa.Table, not_before: date = _EPOCH) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each date, which never goes back; `table` is in offset order."""
    if table.num_rows == 0:
        return
    millis = table["logged_at"].cast(pa.int64()).to_numpy()
    own = np.maximum(millis // _DAY_MS, (not_before - _EPOCH).days)
    days = np.maximum.accumulate(own)
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), table.num_rows]
    for start, end in itertools.pairwise(starts):
        yield _EPOCH + timedelta(days=int(days[start])), table.slice(start, end - start)


def uncovered(files: Iterable[DataFile]) -> list[DataFile]:
    """The files whose range is not within another's, ordered by partition and offset."""
    found: list[DataFile] = []
    for file in sorted(files, key=lambda file: (file.partition, file.first, -file.last)):
        if not found or found[-1].partition != file.partition or file.last > found[-1].last:
            found.append(file)
    return found
