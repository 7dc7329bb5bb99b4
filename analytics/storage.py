"""Where a lake lies: the few operations it needs of a file system, atomic on every one.

On a local file system a file appears by a rename after it is on disk, and locks are the kernel's
(`flock`), which end with the process that holds them. On an object store a file appears when its
upload is complete, and there are no locks: see docs/decisions/0007-event-lake.md.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from adapters.errors import Unavailable

# Small enough that a reader of one column of few rows skips most of a file.
ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 4 << 20
"""In memory; of rows that come piece by piece, no more are held than these."""
READ_ROWS = 4096


class Storage:
    """A folder at an fsspec URL; paths are relative to it, with `/`."""

    def __init__(self, url: str) -> None:
        """`url` as fsspec has it, for instance `/var/lib/lake` or `s3://bucket/lake`."""
        # A listing from a cache would miss what another process wrote.
        self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self.root: str = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path within the file system."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """The path as DuckDB takes it: plain if local, else with its protocol."""
        path = self.path(relative)
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def names(self, relative: str) -> list[str]:
        """Names in a folder, without order; none if it does not exist."""
        try:
            found = self.fs.ls(self.path(relative), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"list {relative}: {error}") from error
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def read(self, relative: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            content: bytes = self.fs.cat_file(self.path(relative))
        except FileNotFoundError:
            return None
        return content

    def write(self, relative: str, data: bytes) -> None:
        """Create or replace a file, at once."""
        with self._appearing(relative) as file:
            file.write(data)

    def read_table(self, relative: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file, or these of its columns; partition folders above it are no columns."""
        with self._opened(relative) as file:
            return pq.ParquetFile(file).read(None if columns is None else list(columns))

    def read_notes(self, relative: str) -> dict[bytes, bytes]:
        """What was written beside the rows of a Parquet file."""
        with self._opened(relative) as file:
            return dict(pq.ParquetFile(file).schema_arrow.metadata or {})

    def read_pieces(self, relative: str) -> Iterator[pa.Table]:
        """As `read_table`, a few rows at a time."""
        with self._opened(relative) as file:
            for batch in pq.ParquetFile(file).iter_batches(READ_ROWS):
                yield pa.Table.from_batches([batch])

    def read_schema(self, relative: str) -> pa.Schema:
        """The columns of a Parquet file, and what was written beside its rows."""
        with self._opened(relative) as file:
            return pq.ParquetFile(file).schema_arrow

    def write_table(self, relative: str, table: pa.Table) -> None:
        """Create or replace a Parquet file, at once; durable when this returns."""
        self.write_pieces(relative, table.schema, [table])

    def write_pieces(self, relative: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
        """As `write_table`, of rows that come piece by piece; returns how many they were.

        Columns of `schema` that a piece lacks are null in its rows.
        """
        rows, waiting = 0, [schema.empty_table()]
        with (
            self._appearing(relative) as file,
            pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                # Not only for size: of a text column without a dictionary that holds one value and
                # nulls, DuckDB 2.0.0 believes that all of it is null.
                use_dictionary=True,
            ) as writer,
        ):

            def write_waiting() -> None:
                table = pa.concat_tables(waiting, promote_options="default")
                writer.write_table(table, ROW_GROUP_ROWS)
                del waiting[1:]

            for piece in pieces:
                rows += piece.num_rows
                waiting.append(piece)
                held = sum(each.nbytes for each in waiting)
                if held >= ROW_GROUP_BYTES or sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                    write_waiting()
            if len(waiting) > 1:
                write_waiting()
        return rows

    def remove(self, relative: str, *, recursive: bool = False) -> None:
        """Delete a file or a folder; none is no error."""
        try:
            self.fs.rm(self.path(relative), recursive=recursive)
        except FileNotFoundError:
            return

    def modified(self, relative: str) -> datetime:
        """When a file was last written, in UTC; the beginning of time if it is gone."""
        try:
            when: datetime = self.fs.modified(self.path(relative))
        except FileNotFoundError:
            return datetime.min.replace(tzinfo=UTC)
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock among the processes of this machine; on an object store, none."""
        if not self.is_local:
            yield
            return
        folder = Path(self.path("_locks"))
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _opened(self, relative: str) -> pa.NativeFile:
        """A file to read, for Arrow alone.

        None of Python's: a thread of Arrow may let go of what it read after all was read, and one
        that has to enter an interpreter for that which is just ending aborts the process.
        """
        path = self.path(relative)
        if self.is_local:
            return pa.OSFile(path)
        content = self.fs.cat_file(path)
        copied = pa.BufferOutputStream()
        copied.write(content)
        return pa.BufferReader(copied.getvalue())

    @contextmanager
    def _appearing(self, relative: str) -> Iterator[IO[Any]]:
        path = self.path(relative)
        try:
            if not self.is_local:
                # An upload that is broken off by an error would appear as far as it came.
                with tempfile.NamedTemporaryFile() as whole:
                    yield whole
                    whole.flush()
                    self.fs.put_file(whole.name, path)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not in a partition folder, and without the suffix: no reader ever takes it for data.
            temporary = Path(self.path("_tmp")) / uuid4().hex
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as local:
                    yield local
                    local.flush()
                    os.fsync(local.fileno())
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
        except OSError as error:
            raise Unavailable(f"write {relative}: {error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
