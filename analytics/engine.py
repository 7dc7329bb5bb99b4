"""Opens DuckDB with limits on memory, threads and disk; other threads can stop its queries."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from adapters.errors import Unavailable
from adapters.machine import machine_memory, usable_cores
from analytics.settings import QuerySettings

MEMORY_SHARE: Final = 8
"""By default queries may take one part in this many of the machine's memory."""
LEAST_BYTES: Final = 64 << 20
"""Minimum memory with which DuckDB can read a Parquet file."""
TEMPORARY_TIMES_MEMORY: Final = 4
TEMPORARY_SHARE_OF_FREE: Final = 0.5


class Stopped(Exception):
    """The query was stopped because its callers were cancelled."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one connection."""

    memory_bytes: int
    threads: int

    @classmethod
    def of(cls, settings: QuerySettings, *, connections: int = 1) -> Bounds:
        """The limits of each connection if `connections` are used at the same time."""
        memory = settings.analytics_memory or machine_memory() // MEMORY_SHARE
        return cls(
            max(LEAST_BYTES, int(memory) // connections),
            settings.analytics_threads or max(1, usable_cores() // 2),
        )

    @property
    def temporary_bytes(self) -> int:
        """Limit on temporary files, in bytes."""
        return TEMPORARY_TIMES_MEMORY * self.memory_bytes


class Stop:
    """Stops the query of another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._connection: duckdb.DuckDBPyConnection | None = None

    def now(self) -> None:
        """Interrupt the running statement.

        To be called again until the work has ended: DuckDB ignores an interruption that comes just
        before a statement.
        """
        with self._lock:
            self._wanted = True
            if self._connection is not None:
                self._connection.interrupt()

    def check(self) -> None:
        """Raise if the work was stopped.

        Raises:
            Stopped: it was.
        """
        if self._wanted:
            raise Stopped

    @contextmanager
    def watching(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Within the block, `now` interrupts this connection, which must stay open until its end.

        Raises:
            Stopped: the work was stopped, before or within the block.
        """
        with self._lock:
            self._connection = connection
        try:
            self.check()
            yield
        except duckdb.InterruptException as error:
            self.check()
            raise Unavailable(f"the query was interrupted: {error}") from error
        finally:
            with self._lock:
                self._connection = None


@contextmanager
def connect(
    bounds: Bounds | None = None, stop: Stop | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty in-memory database within these bounds; by default, those of the settings. Blocks.

    Raises:
        Stopped: the work was stopped.
        Unavailable: a query needs more memory, or more temporary files, than the bounds allow.
    """
    bounds = bounds or Bounds.of(QuerySettings())
    # By default, DuckDB would write temporary files into the working directory.
    with tempfile.TemporaryDirectory(prefix="image-search-analytics-") as folder:
        try:
            with (
                duckdb.connect(
                    ":memory:",
                    config={
                        "memory_limit": f"{bounds.memory_bytes}B",
                        "threads": bounds.threads,
                        "temp_directory": str(Path(folder) / "duckdb"),
                    },
                ) as connection,
                (stop or Stop()).watching(connection),
            ):
                free = int(shutil.disk_usage(folder).free * TEMPORARY_SHARE_OF_FREE)
                temporary = min(bounds.temporary_bytes, free)
                # This has no effect as a connection option (DuckDB 2.0).
                connection.execute(f"SET max_temp_directory_size = '{temporary}B'")
                connection.execute("SET enable_progress_bar = false")
                yield connection
        except duckdb.OutOfMemoryException as error:
            raise Unavailable(
                f"the query needs more than {bounds.memory_bytes >> 20} MiB of memory and "
                f"{bounds.temporary_bytes >> 20} MiB of temporary files: select a shorter period, "
                "or raise ANALYTICS_MEMORY"
            ) from error
