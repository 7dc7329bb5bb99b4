"""The file system operations of the lake, each of them atomic.

On a local file system a file is written and synced first, then renamed; locks are `flock`, which
the kernel releases when a process ends. On an object store a file appears when its upload is
complete, and there are no locks: see docs/decisions/0007-event-lake.md.
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
ROW_GROUP_BYTES = 16 << 20
"""Size in memory; rows that are written in pieces are buffered up to this size."""
READ_ROWS = 4096


class Storage:
    """A folder at an fsspec URL; paths are relative to it, with `/`."""

    def __init__(self, url: str) -> None:
        """`url` as fsspec has it, for instance `/var/lib/lake` or `s3://bucket/lake`."""
        # A cached listing would miss what other processes wrote.
        self.fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self.root: str = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path within the file system."""
        return f"{self.root}/{relative}"

    def url(self, relative: str) -> str:
        """The path for DuckDB: plain if local, else with its protocol."""
        path = self.path(relative)
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    def names(self, relative: str) -> list[str]:
        """Names in a folder, unordered; empty if it does not exist."""
        try:
            found = self.fs.ls(self.path(relative), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"list {relative}: {error}") from error
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def read(self, relative: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            content: bytes = self.fs.cat_file(self.path(relative))
        except FileNotFoundError:
            return None
        return content

    def write(self, relative: str, data: bytes) -> None:
        """Create or replace a file atomically."""
        with self._atomic_file(relative) as file:
            file.write(data)

    def read_table(self, relative: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file, or some of its columns. Partition folders do not become columns."""
        with self._opened(relative) as file:
            return pq.ParquetFile(file).read(None if columns is None else list(columns))

    def read_metadata(self, relative: str) -> dict[bytes, bytes]:
        """The metadata of a Parquet file's schema."""
        with self._opened(relative) as file:
            return dict(pq.ParquetFile(file).schema_arrow.metadata or {})

    def read_pieces(self, relative: str) -> Iterator[pa.Table]:
        """As `read_table`, a few rows at a time."""
        with self._opened(relative) as file:
            for batch in pq.ParquetFile(file).iter_batches(READ_ROWS):
                yield pa.Table.from_batches([batch])

    def read_schema(self, relative: str) -> pa.Schema:
        """The schema of a Parquet file, with its metadata."""
        with self._opened(relative) as file:
            return pq.ParquetFile(file).schema_arrow

    def write_table(self, relative: str, table: pa.Table) -> None:
        """Create or replace a Parquet file atomically; durable when this returns."""
        self.write_pieces(relative, table.schema, [table])

    def write_pieces(self, relative: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
        """As `write_table`, for rows in pieces. Returns the number of rows.

        Columns that a piece lacks are null in its rows.
        """
        rows, waiting = 0, [schema.empty_table()]
        with (
            self._atomic_file(relative) as file,
            pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                # DuckDB 2.0.0 reads a text column without a dictionary as all null if it holds one
                # distinct value and nulls.
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
        """Delete a file or a folder, if it exists."""
        try:
            self.fs.rm(self.path(relative), recursive=recursive)
        except FileNotFoundError:
            return

    def modified(self, relative: str) -> datetime:
        """When a file was last written, in UTC; `datetime.min` if it does not exist."""
        try:
            when: datetime = self.fs.modified(self.path(relative))
        except FileNotFoundError:
            return datetime.min.replace(tzinfo=UTC)
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock between the processes of this machine. Does nothing on an object store."""
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
        """Open a file as a native Arrow file, not a Python one.

        A thread of Arrow may release its buffers late. If it has to enter a Python interpreter that
        is shutting down, the process aborts.
        """
        path = self.path(relative)
        if self.is_local:
            return pa.OSFile(path)
        content = self.fs.cat_file(path)
        copied = pa.BufferOutputStream()
        copied.write(content)
        return pa.BufferReader(copied.getvalue())

    @contextmanager
    def _atomic_file(self, relative: str) -> Iterator[IO[Any]]:
        path = self.path(relative)
        try:
            if not self.is_local:
                # An upload that is interrupted by an error would leave a partial file.
                with tempfile.NamedTemporaryFile() as whole:
                    yield whole
                    whole.flush()
                    self.fs.put_file(whole.name, path)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Outside of partition folders and without the suffix, so no reader takes it for data.
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
