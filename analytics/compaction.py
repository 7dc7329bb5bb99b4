"""Merges small files of the lake and deletes rows, while other processes write and read.

A merged file appears beside the files it replaces, and readers prefer it from then on
(`analytics.lake.uncovered`). The replaced files stay for a grace period, for running readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from adapters.errors import Unavailable
from analytics.lake import DataFile, ForgetRequest, Generation, Lake, uncovered
from schemas.topics import PERSONAL

SMALL_OFFSETS = 100_000
"""Files of at most this many offsets are merged."""
MERGED_OFFSETS = 400_000
"""Approximate maximum of offsets in a merged file."""


@dataclass(slots=True)
class CompactionResult:
    """The result of a compaction, in numbers of files."""

    merged: int = 0
    written: int = 0
    removed: int = 0


def compact(
    generation: Generation,
    topic: str,
    partition: int | None = None,
    *,
    min_files: int = 16,
    grace_seconds: float = 600.0,
) -> CompactionResult:
    """Merge adjacent small files of one day; remove files that were replaced long ago. Blocks.

    Files of different days are not merged, so that readers can prune by date.
    """
    done = CompactionResult()
    lake = generation.lake
    numbers = {file.partition.number for file in generation.files(topic, partition)}
    for number in sorted(numbers):
        with lake.storage.locked(f"{topic}-{number}"):
            if lake.current().name != generation.name:
                return done
            files = generation.files(topic, number)
            live = uncovered(files)
            for file in _removable(lake, files, live, grace_seconds):
                lake.storage.remove(file.path)
                done.removed += 1
            for group in _mergeable(live, min_files):
                path = generation.path_of(
                    group[0].partition, group[0].date, group[0].first, group[-1].last
                )
                lake.merge(path, [file.path for file in group])
                done.merged += len(group)
                done.written += 1
    return done


@dataclass(frozen=True, slots=True)
class CompactionJob:
    """One partition to compact; see `compact`. Can be pickled."""

    lake_url: str
    topic: str
    partition: int
    min_files: int
    grace_seconds: float

    def is_due(self) -> bool:
        """Whether there are files to merge or to remove. Lists the files only. Blocks."""
        lake = Lake(self.lake_url)
        files = lake.current().files(self.topic, self.partition)
        live = uncovered(files)
        if any(_mergeable(live, self.min_files)):
            return True
        return any(_removable(lake, files, live, self.grace_seconds))

    def run(self) -> CompactionResult:
        """Compact the partition. Blocks.

        Merging takes a lot of memory for a moment, which neither Arrow nor the C library returns in
        full: run it in a process that ends.
        """
        return compact(
            Lake(self.lake_url).current(),
            self.topic,
            self.partition,
            min_files=self.min_files,
            grace_seconds=self.grace_seconds,
        )


class Sweep:
    """Deletes forgotten rows from every file once.

    A process that was killed after writing a merged file may have left such rows.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._done: set[str] = set()
        self._for = ForgetRequest()

    def run(self) -> int:
        """Check the files that were not checked since the last request to forget. Blocks.

        Returns:
            Number of deleted rows.
        """
        generation = self._lake.existing()
        forgotten = self._lake.forgotten()
        if generation is None or forgotten == ForgetRequest():
            return 0
        if forgotten != self._for:
            self._for, self._done = forgotten, set()
        deleted = 0
        for topic in PERSONAL:
            for file in generation.snapshot(topic.name):
                if file.path not in self._done:
                    deleted += _delete_rows(self._lake, file, forgotten)
                    self._done.add(file.path)
        return deleted


def _delete_rows(lake: Lake, file: DataFile, forgotten: ForgetRequest) -> int:
    with lake.storage.locked(f"{file.partition.topic}-{file.partition.number}"):
        try:
            table = lake.storage.read_table(file.path)
        except FileNotFoundError:
            return 0  # Merged or expired meanwhile.
        if forgotten.without(table).num_rows == table.num_rows:
            return 0
        return int(table.num_rows) - lake.write_rows(file.path, table)


def _mergeable(files: Iterable[DataFile], min_files: int) -> Iterator[list[DataFile]]:
    group: list[DataFile] = []
    for file in files:
        small = file.last - file.first < SMALL_OFFSETS
        follows = (
            bool(group)
            and file.date == group[-1].date
            and file.first == group[-1].last + 1
            and file.last - group[0].first < MERGED_OFFSETS
        )
        if small and (follows or not group):
            group.append(file)
            continue
        if len(group) >= min_files:
            yield group
        group = [file] if small else []
    if len(group) >= min_files:
        yield group


def _removable(
    lake: Lake, files: Iterable[DataFile], live: Iterable[DataFile], grace_seconds: float
) -> Iterator[DataFile]:
    """Files that were replaced by a merged one at least `grace_seconds` ago."""
    paths = {file.path for file in live}
    before = datetime.now(UTC) - timedelta(seconds=grace_seconds)
    for file in files:
        if file.path in paths:
            continue
        cover = next(k for k in live if k.first <= file.first and file.last <= k.last)
        if lake.storage.modified(cover.path) <= before:
            yield file


def expire(lake: Lake, days: int, now: datetime | None = None) -> int:
    """Delete searches and ratings older than `days` days, by whole days of UTC. Blocks.

    The last file of a partition stays, without its rows, because its name holds the next offset.

    Returns:
        Number of files removed or emptied.
    """
    generation = lake.current()
    oldest = ((now or datetime.now(UTC)) - timedelta(days=days)).date()
    done = 0
    for topic in PERSONAL:
        for number in sorted({file.partition.number for file in generation.files(topic.name)}):
            with lake.storage.locked(f"{topic.name}-{number}"):
                files = generation.files(topic.name, number)
                if not files or lake.current().name != generation.name:
                    return done  # replaced by a rebuild
                last = uncovered(files)[-1]
                for file in files:
                    if file.date >= oldest:
                        continue
                    if file.path != last.path:
                        lake.storage.remove(file.path)
                        done += 1
                    elif (table := lake.storage.read_table(file.path)).num_rows:
                        lake.storage.write_table(file.path, table.schema.empty_table())
                        done += 1
    return done


def forget(lake: Lake, wanted: ForgetRequest) -> int:
    """Delete the rows of these searches and of all searches of these clients. Blocks.

    The request is stored first, so that no writer or rebuild writes such rows again. Then every
    file with such rows is rewritten under the same name, and copies of merged files are removed.

    Returns:
        Number of deleted rows.
    """
    generation = lake.current()
    named = ForgetRequest(
        wanted.searches | _searches_of(generation, wanted.clients), wanted.clients
    )
    lake.add_forget_request(named)
    deleted = 0
    for topic in ("searches", "feedback"):
        for number in sorted({file.partition.number for file in generation.files(topic)}):
            with lake.storage.locked(f"{topic}-{number}"):
                files = generation.files(topic, number)
                live = uncovered(files)
                for file in _removable(lake, files, live, 0.0):
                    lake.storage.remove(file.path)
                for file in live:
                    table = lake.storage.read_table(file.path)
                    if named.without(table).num_rows < table.num_rows:
                        deleted += table.num_rows - lake.write_rows(file.path, table)
    if lake.current().name != generation.name:
        raise Unavailable("the lake was rebuilt meanwhile: repeat the command")
    return deleted


def _searches_of(generation: Generation, clients: frozenset[str]) -> frozenset[str]:
    found: set[str] = set()
    if not clients:
        return frozenset()
    values = pa.array(sorted(clients), pa.string())
    for file in generation.snapshot("searches"):
        table = generation.lake.storage.read_table(file.path)
        table = table.filter(pc.is_in(table["client"], value_set=values))
        found.update(value for value in table["search_id"].to_pylist() if value)
    return frozenset(found)
