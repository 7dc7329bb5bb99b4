"""What differs between consumer groups: how a member joins, and how it handles its records."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.log.port import LogRecord, Partition
from schemas.topics import Topic


class GroupWork(Protocol):
    """What a group does with its records. One instance per process.

    `ConsumerLoop` calls `choose_offsets` on assignment, then `begin`; `put` for each batch; and
    `give_up` before the partitions are revoked.
    """

    def attach(self, member: Any) -> None:
        """Called once, with the `ConsumerLoop` through which to commit."""
        ...

    @property
    def failed(self) -> asyncio.Future[None]:
        """Receives the first error that ends the work."""
        ...

    def fail(self, error: BaseException) -> None:
        """End with this error, unless there was an earlier one."""
        ...

    def start(self) -> None:
        """Start working."""
        ...

    async def stop(self) -> None:
        """Cancel the work without waiting for the records in flight."""
        ...

    async def choose_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The offset to read each of these partitions from; waits while servers are down."""
        ...

    async def begin(self) -> None:
        """Called when reading from the chosen offsets has begun; commits wait until it returns."""
        ...

    def put(self, records: Mapping[Partition, Sequence[LogRecord]]) -> None:
        """Take a batch; never waits."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether no more records should be put in for now."""
        ...

    async def wait_for_room(self) -> None:
        """Wait until it is no longer full."""
        ...

    async def give_up(self, seconds: float) -> None:
        """Finish the records in flight, or drop what is unfinished after `seconds` if the work can
        be interrupted: it is not committed, so the next owner reads it again."""
        ...


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How one member joins its group and reads. Times are in seconds, sizes in bytes."""

    bootstrap_servers: str
    group_id: str
    topics: Sequence[Topic]
    max_records: int
    """Maximum number of records in a batch."""
    batch_wait: float
    """Longest time a partial batch waits for more records."""
    max_poll_interval: float
    session_timeout: float
    heartbeat: float
    rebalance_timeout: float | None = None
    """Time for members to finish and rejoin; None for the session timeout."""
    rebalance_grace: float = 10.0
    """Time for work in flight when partitions are revoked; well below the rebalance timeout."""
    shutdown_grace: float = 20.0
    fetch_bytes: int = 50 * 1024 * 1024
    partition_fetch_bytes: int = 1024 * 1024
    keep_headers: bool = True
