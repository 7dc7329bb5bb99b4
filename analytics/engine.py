"""Opens DuckDB with limits on memory, threads and disk; other threads can cancel its queries."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.errors import Unavailable
from adapters.machine import machine_memory, usable_cores
from analytics.settings import QuerySettings

if TYPE_CHECKING:
    import duckdb

MEMORY_SHARE: Final = 8
"""By default queries may take one part in this many of the machine's memory."""
LEAST_BYTES: Final = 64 << 20
"""Minimum memory with which DuckDB can read a Parquet file."""
TEMPORARY_TIMES_MEMORY: Final = 4
TEMPORARY_SHARE_OF_FREE: Final = 0.5


class QueryCancelled(Exception):
    """The query was cancelled through its `CancellationToken`."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """The limits of one connection."""

    memory_bytes: int
    threads: int

    @classmethod
    def of(cls, settings: QuerySettings, *, connections: int = 1) -> QueryLimits:
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


class CancellationToken:
    """Cancels a query that runs in another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._connection: duckdb.DuckDBPyConnection | None = None

    def cancel(self) -> None:
        """Interrupt the running statement.

        To be called again until the work has ended: DuckDB ignores an interruption that comes just
        before a statement.
        """
        with self._lock:
            self._is_cancelled = True
            if self._connection is not None:
                self._connection.interrupt()

    def raise_if_cancelled(self) -> None:
        """Return unless `cancel` was called.

        Raises:
            QueryCancelled: it was called.
        """
        if self._is_cancelled:
            raise QueryCancelled

    @contextmanager
    def interrupting(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Within the block, `cancel` interrupts this connection, which must stay open until then.

        Raises:
            QueryCancelled: `cancel` was called, before or within the block.
        """
        import duckdb

        with self._lock:
            self._connection = connection
        try:
            self.raise_if_cancelled()
            yield
        except duckdb.InterruptException as error:
            self.raise_if_cancelled()
            raise Unavailable(f"the query was interrupted: {error}") from error
        finally:
            with self._lock:
                self._connection = None


@contextmanager
def connect(
    limits: QueryLimits | None = None, cancellation: CancellationToken | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty in-memory database within these limits; by default, those of the settings. Blocks.

    Raises:
        QueryCancelled: the query was cancelled.
        Unavailable: a query needs more memory, or more temporary files, than the limits allow.
    """
    import duckdb  # Not before the first query: it takes 15 MB.

    limits = limits or QueryLimits.of(QuerySettings())
    # By default, DuckDB would write temporary files into the working directory.
    with tempfile.TemporaryDirectory(prefix="image-search-analytics-") as folder:
        try:
            with (
                duckdb.connect(
                    ":memory:",
                    config={
                        "memory_limit": f"{limits.memory_bytes}B",
                        "threads": limits.threads,
                        "temp_directory": str(Path(folder) / "duckdb"),
                    },
                ) as connection,
                (cancellation or CancellationToken()).interrupting(connection),
            ):
                free = int(shutil.disk_usage(folder).free * TEMPORARY_SHARE_OF_FREE)
                temporary = min(limits.temporary_bytes, free)
                # This has no effect as a connection option (DuckDB 2.0).
                connection.execute(f"SET max_temp_directory_size = '{temporary}B'")
                connection.execute("SET enable_progress_bar = false")
                yield connection
        except duckdb.OutOfMemoryException as error:
            raise Unavailable(
                f"the query needs more than {limits.memory_bytes >> 20} MiB of memory and "
                f"{limits.temporary_bytes >> 20} MiB of temporary files: select a shorter period, "
                "or raise ANALYTICS_MEMORY"
            ) from error
