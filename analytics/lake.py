"""The event lake: Parquet files named by what they hold, so that their names are the whole truth.

    CURRENT                                       name of the generation that is in use
    <generation>/topic=searches/date=2026-01-05/searches-3-100-199.parquet

A file holds the records of one partition from its first to its last offset, both included. Two
files never overlap in part: where one's range lies within another's, compaction has merged it, and
readers leave the smaller one out (`snapshot`). The date is that of Kafka's timestamp in UTC and
never goes back within a partition, so that a flush around midnight is cut once, in offset order:
a crash between its two files leaves the lake at the end of the first.
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
"""What the lake holds."""

POINTER: Final = "CURRENT"
FORGOTTEN: Final = "_forgotten"
EMPTY: Final = "date=1970-01-01/empty.parquet"
"""A file of each topic without rows, so that a view has its columns before the first event."""

ABANDONED: Final = timedelta(days=2)
"""No rebuild takes so long."""
_EPOCH: Final = date(1970, 1, 1)
_DAY_MS: Final = 86_400_000
_NAME = re.compile(r"-(?P<partition>\d+)-(?P<first>\d+)-(?P<last>\d+)\.parquet$")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of the lake; `path` is relative to the lake."""

    place: Place
    date: date
    first: int
    last: int
    path: str


@dataclass(frozen=True, slots=True)
class End:
    """How far a partition has come: the next offset, and the date before which none is filed."""

    offset: int = 0
    date: date = _EPOCH


class Moved(Exception):
    """The partition is elsewhere than its writer believed: another one wrote, or a rebuild."""

    def __init__(self, place: Place, expected: int, end: End) -> None:
        super().__init__(f"{place} continues at {end.offset}, not at {expected}")
        self.end = end


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Searches and clients of which nothing is kept."""

    searches: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()

    def without(self, table: pa.Table) -> pa.Table:
        """The rows that are to be kept."""
        for column, values in (("search_id", self.searches), ("client", self.clients)):
            if values and column in table.schema.names:
                named = pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string()))
                table = table.filter(pc.invert(named))
        if self.searches and table.num_rows:
            # What could not be read as an event is known by its key.
            named = pc.is_in(table["key"], value_set=pa.array(sorted(self.searches), pa.string()))
            table = table.filter(pc.invert(named))
        return table


@dataclass
class Lake:
    """The lake at `url`. All methods block; none keeps anything open."""

    url: str
    storage: Storage = field(init=False)

    def __post_init__(self) -> None:
        self.storage = Storage(self.url)

    def current(self) -> Generation:
        """The generation in use; the first one is made where there is none."""
        if (named := self._named()) is None:
            with self.storage.locked("lake"):
                if (named := self._named()) is None:
                    generation = self.new_generation()
                    self.switch_to(generation)
                    return generation
        return Generation(self, named)

    def existing(self) -> Generation | None:
        """The generation in use; None where nothing was ever written."""
        named = self._named()
        return None if named is None else Generation(self, named)

    def _named(self) -> str | None:
        content = self.storage.read(POINTER)
        return content.decode().strip() if content else None

    def new_generation(self) -> Generation:
        """An empty one, which nobody reads yet."""
        generation = Generation(self, f"g-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}")
        for topic in TOPICS:
            path = f"{generation.name}/topic={topic.name}/{EMPTY}"
            self.storage.write_table(path, schema_of(topic).empty_table())
        return generation

    def switch_to(self, generation: Generation, *, instead_of: Generation | None = None) -> None:
        """Let everybody read and continue this one from now on, at once.

        Raises:
            Unavailable: another one is in use by now than `instead_of`. Nothing was changed.
        """
        with self.storage.locked("switch"):
            if instead_of is not None and self._named() != instead_of.name:
                raise Unavailable("the lake was rebuilt by somebody else meanwhile")
            self.storage.write(POINTER, f"{generation.name}\n".encode())

    def remove_replaced(self, generation: Generation) -> None:
        """Delete a generation that is no longer in use, and what rebuilds left that broke off.

        Another one that is just being made stays: it may be in use next.
        """
        # Whoever began to write into it holds its partition's lock until it is done.
        for name in self.storage.names("_locks"):
            with self.storage.locked(name.removesuffix(".lock")):
                pass
        used = self.current().name
        before = f"g-{datetime.now(UTC) - ABANDONED:%Y%m%dT%H%M%S}"
        for name in self.storage.names(""):
            replaced = name == generation.name or (name.startswith("g-") and name < before)
            if replaced and name != used:
                self.storage.remove(name, recursive=True)

    def forgotten(self) -> Forgotten:
        """What `forget` was told so far, by all processes."""
        searches: set[str] = set()
        clients: set[str] = set()
        for name in self.storage.names(FORGOTTEN):
            said = json.loads(self.storage.read(f"{FORGOTTEN}/{name}") or b"{}")
            searches.update(said.get("searches", ()))
            clients.update(said.get("clients", ()))
        return Forgotten(frozenset(searches), frozenset(clients))

    def remember_to_forget(self, more: Forgotten) -> None:
        """Add to `forgotten`: no writer files these any more, a rebuild neither."""
        said = {"searches": sorted(more.searches), "clients": sorted(more.clients)}
        self.storage.write(f"{FORGOTTEN}/{uuid4().hex}.json", json.dumps(said).encode())

    def write_rows(self, path: str, table: pa.Table) -> int:
        """Write rows, without those that are to be forgotten by the time they are there.

        Returns:
            How many rows were written.
        """
        return self._write(path, table.schema, [table], lambda: [table])

    def merge(self, path: str, merged: Sequence[str]) -> int:
        """Write the rows of these files into one, in this order, as `write_rows`.

        What is told beside the last one's rows is told beside the merged ones, which end with them.
        """
        schemas = [self.storage.read_schema(each) for each in merged]
        schema = pa.unify_schemas(schemas, promote_options="default")
        schema = schema.with_metadata(schemas[-1].metadata)
        rows = itertools.chain.from_iterable(map(self.storage.read_pieces, merged))
        # Once it is written, somebody may remove those that it was made of.
        return self._write(path, schema, rows, lambda: self.storage.read_pieces(path))

    def _write(
        self,
        path: str,
        schema: pa.Schema,
        pieces: Iterable[pa.Table],
        again: Callable[[], Iterable[pa.Table]],
    ) -> int:
        """The one way to write rows; `again` gives them once they were written.

        An object store has no locks: somebody may forget between reading and writing. What is
        forgotten is remembered first and then taken out of the files there are; so either it was
        remembered before this looked, or the file was there to be taken out of.
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
    """One complete set of files."""

    lake: Lake
    name: str

    def files(self, topic: str, partition: int | None = None) -> list[DataFile]:
        """Every file of the topic, those that compaction has merged included."""
        folder = f"{self.name}/topic={topic}"
        return [
            file
            for day in self.lake.storage.names(folder)
            for file in self._files_of(topic, day)
            if partition is None or file.place.partition == partition
        ]

    def _files_of(self, topic: str, day: str) -> Iterator[DataFile]:
        if not day.startswith("date="):
            return
        folder = f"{self.name}/topic={topic}/{day}"
        for name in self.lake.storage.names(folder):
            if found := _NAME.search(name):
                yield DataFile(
                    Place(topic, int(found["partition"])),
                    date.fromisoformat(day.removeprefix("date=")),
                    int(found["first"]),
                    int(found["last"]),
                    f"{folder}/{name}",
                )

    def snapshot(self, topic: str, partition: int | None = None) -> list[DataFile]:
        """The files that together hold each record exactly once, by partition and offset."""
        return uncovered(self.files(topic, partition))

    def end(self, place: Place) -> End:
        """Where the partition continues."""
        days = self.lake.storage.names(f"{self.name}/topic={place.topic}")
        for day in sorted(days, reverse=True):
            # Dates never go back within a partition, so the newest one has its last offset.
            ours = [f for f in self._files_of(place.topic, day) if f.place == place]
            if ours:
                last = max(ours, key=lambda file: file.last)
                return End(last.last + 1, last.date)
        return End()

    def append(
        self,
        topic: Topic,
        place: Place,
        begin: End,
        records: Sequence[LogRecord],
        keep: Callable[[pa.Table], pa.Table] | None = None,
    ) -> End:
        """File the records that follow `begin`, and only if the partition still ends there.

        `keep` leaves out rows that are filed elsewhere; the file's range covers them all the same.

        Returns:
            Where the partition continues now.

        Raises:
            Moved: it does not end at `begin`. Nothing was written.
            Unavailable: the storage does not take it. Some of the days may be filed.
        """
        table = table_of(topic, records)
        return self.append_table(place, begin, table, keep, must_be_current=True)

    def append_table(
        self,
        place: Place,
        begin: End,
        table: pa.Table,
        keep: Callable[[pa.Table], pa.Table] | None = None,
        *,
        must_be_current: bool = False,
    ) -> End:
        """The same for rows, in offset order.

        Where it `must_be_current`, a generation that a rebuild has replaced has moved, too.
        """
        with self.lake.storage.locked(f"{place.topic}-{place.partition}"):
            if must_be_current and (used := self.lake.current()).name != self.name:
                raise Moved(place, begin.offset, used.end(place))
            if (end := self.end(place)).offset != begin.offset:
                raise Moved(place, begin.offset, end)
            first = begin.offset
            for day, piece in by_date(table, begin.date):
                last = piece["offset"][-1].as_py()
                # Where the log has a gap, the file covers it: its range begins where the last
                # one ended, whatever the first offset in it.
                path = self.path_of(place, day, first, last)
                piece = with_last_records(piece)
                self.lake.write_rows(path, piece if keep is None else keep(piece))
                first, end = last + 1, End(last + 1, day)
            return end

    def path_of(self, place: Place, day: date, first: int, last: int) -> str:
        """The one path of this range."""
        name = f"{place.topic}-{place.partition}-{first}-{last}.parquet"
        return f"{self.name}/topic={place.topic}/date={day.isoformat()}/{name}"


def by_date(table: pa.Table, not_before: date = _EPOCH) -> Iterator[tuple[date, pa.Table]]:
    """Runs of rows of one date, which never goes back; `table` is in offset order."""
    if table.num_rows == 0:
        return
    millis = table["logged_at"].cast(pa.int64()).to_numpy()
    own = np.maximum(millis // _DAY_MS, (not_before - _EPOCH).days)
    days = np.maximum.accumulate(own)
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), table.num_rows]
    for start, end in itertools.pairwise(starts):
        yield _EPOCH + timedelta(days=int(days[start])), table.slice(start, end - start)


def uncovered(files: Iterable[DataFile]) -> list[DataFile]:
    """Without those whose range lies within another's; by place and offset."""
    kept: list[DataFile] = []
    for file in sorted(files, key=lambda file: (file.place, file.first, -file.last)):
        if not kept or kept[-1].place != file.place or file.last > kept[-1].last:
            kept.append(file)
    return kept
