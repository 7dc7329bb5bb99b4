"""Few big files from many small ones, and rows taken out, while others write and read.

A merged file appears beside the files it replaces, and from that moment readers prefer it
(`analytics.lake.uncovered`). The replaced ones stay for a grace, for readers that have begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from adapters.errors import Unavailable
from analytics.lake import DataFile, Forgotten, Generation, Lake, uncovered
from schemas.topics import PERSONAL

SMALL_OFFSETS = 100_000
"""Files of at most this many offsets are merged."""
MERGED_OFFSETS = 400_000
"""A merged file has at most about this many offsets."""


@dataclass(slots=True)
class Compacted:
    """What was done, in files."""

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
) -> Compacted:
    """Merge neighbouring small files of one day; remove what was merged before the grace. Blocks.

    Days are merged alone, so files stay where readers that prune by date look for them.
    """
    done = Compacted()
    lake = generation.lake
    numbers = {file.place.partition for file in generation.files(topic, partition)}
    for number in sorted(numbers):
        with lake.storage.locked(f"{topic}-{number}"):
            if lake.current().name != generation.name:
                return done
            files = generation.files(topic, number)
            kept = uncovered(files)
            _remove_covered(lake, files, kept, grace_seconds, done)
            for run in _runs(kept, min_files):
                path = generation.path_of(run[0].place, run[0].date, run[0].first, run[-1].last)
                lake.merge(path, [file.path for file in run])
                done.merged += len(run)
                done.written += 1
    if done.written:
        # Arrow keeps what merging took, and gives it back in the thread that took it alone.
        pa.default_memory_pool().release_unused()
    return done


class Sweep:
    """Takes what is to be forgotten out of every file once, wherever it came from.

    A process that was killed between writing a merged file and looking again may have left some.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._done: set[str] = set()
        self._for = Forgotten()

    def run(self) -> int:
        """Look into the files that were not looked into since something was forgotten. Blocks.

        Returns:
            How many rows were taken out.
        """
        generation = self._lake.existing()
        forgotten = self._lake.forgotten()
        if generation is None or forgotten == Forgotten():
            return 0
        if forgotten != self._for:
            self._for, self._done = forgotten, set()
        taken = 0
        for topic in PERSONAL:
            for file in generation.snapshot(topic.name):
                if file.path not in self._done:
                    taken += _take_out(self._lake, file, forgotten)
                    self._done.add(file.path)
        return taken


def _take_out(lake: Lake, file: DataFile, forgotten: Forgotten) -> int:
    with lake.storage.locked(f"{file.place.topic}-{file.place.partition}"):
        try:
            table = lake.storage.read_table(file.path)
        except FileNotFoundError:
            return 0  # Merged or expired meanwhile.
        if forgotten.without(table).num_rows == table.num_rows:
            return 0
        return int(table.num_rows) - lake.write_rows(file.path, table)


def _runs(files: Iterable[DataFile], min_files: int) -> Iterator[list[DataFile]]:
    run: list[DataFile] = []
    for file in files:
        small = file.last - file.first < SMALL_OFFSETS
        follows = (
            bool(run)
            and file.date == run[-1].date
            and file.first == run[-1].last + 1
            and file.last - run[0].first < MERGED_OFFSETS
        )
        if small and (follows or not run):
            run.append(file)
            continue
        if len(run) >= min_files:
            yield run
        run = [file] if small else []
    if len(run) >= min_files:
        yield run


def _remove_covered(
    lake: Lake,
    files: Iterable[DataFile],
    kept: Iterable[DataFile],
    grace_seconds: float,
    done: Compacted,
) -> None:
    paths = {file.path for file in kept}
    before = datetime.now(UTC) - timedelta(seconds=grace_seconds)
    for file in files:
        if file.path in paths:
            continue
        cover = next(k for k in kept if k.first <= file.first and file.last <= k.last)
        if lake.storage.modified(cover.path) <= before:
            lake.storage.remove(file.path)
            done.removed += 1


def expire(lake: Lake, days: int, now: datetime | None = None) -> int:
    """Delete what people did more than `days` days ago, by whole days of UTC. Blocks.

    A partition's last file stays, without its rows: it says where the partition continues.

    Returns:
        How many files were removed or emptied.
    """
    generation = lake.current()
    oldest = ((now or datetime.now(UTC)) - timedelta(days=days)).date()
    done = 0
    for topic in PERSONAL:
        for number in sorted({file.place.partition for file in generation.files(topic.name)}):
            with lake.storage.locked(f"{topic.name}-{number}"):
                files = generation.files(topic.name, number)
                if not files or lake.current().name != generation.name:
                    return done  # a rebuild took its place
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


def forget(lake: Lake, wanted: Forgotten) -> int:
    """Take out what is known of these searches and of these clients' searches. Blocks.

    It is remembered first, so that no writer and no rebuild files it again; then every file that
    holds some of it is written anew under its own name. Old copies of merged files are removed.

    Returns:
        How many rows were taken out.
    """
    generation = lake.current()
    named = Forgotten(wanted.searches | _searches_of(generation, wanted.clients), wanted.clients)
    lake.remember_to_forget(named)
    taken = 0
    for topic in ("searches", "feedback"):
        for number in sorted({file.place.partition for file in generation.files(topic)}):
            with lake.storage.locked(f"{topic}-{number}"):
                files = generation.files(topic, number)
                kept = uncovered(files)
                _remove_covered(lake, files, kept, 0.0, Compacted())
                for file in kept:
                    table = lake.storage.read_table(file.path)
                    if named.without(table).num_rows < table.num_rows:
                        taken += table.num_rows - lake.write_rows(file.path, table)
    if lake.current().name != generation.name:
        raise Unavailable("the lake was rebuilt meanwhile: forget again")
    return taken


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
