"""The pipeline between the consumer loop and the indexer: bounded, and in log order.

The consumer loop puts batches in and goes back to polling; when the pipeline is full, it pauses its
partitions. One task prepares a batch while another one writes the batch before it. Offsets are
committed after the write, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from adapters.log.port import LogRecord
from adapters.retry import until_available
from consumers.indexing.batch import PreparedBatch
from consumers.indexing.indexer import Indexer
from consumers.process.background_work import BackgroundWork

logger = logging.getLogger(__name__)

Commit = Callable[[Mapping[int, int]], Awaitable[None]]
"""Commits partition -> next offset to read; raises `Unavailable` while the broker cannot."""

PREPARED_AHEAD = 1
COMMIT_WAIT_SECONDS = 2.0


class IndexingPipeline(BackgroundWork):
    """The batches of one consumer that are in flight between the log and the index."""

    def __init__(
        self,
        indexer: Indexer,
        commit: Commit,
        *,
        capacity: int,
        broker_is_away: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`capacity` is the number of records in flight from which the pipeline is full.

        `broker_is_away` is called when a commit fails: a consumer may be broken while its broker
        works (aiokafka's issues 712, 718 and 1154), and then only a restart helps.
        """
        super().__init__()
        self._broker_is_away = broker_is_away
        self._indexer = indexer
        self._commit = commit
        self._capacity = capacity
        self._waiting: asyncio.Queue[Sequence[LogRecord]] = asyncio.Queue()
        self._prepared: asyncio.Queue[PreparedBatch] = asyncio.Queue(PREPARED_AHEAD)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: list[asyncio.Task[None]] = []
        self.committed = 0
        """Records whose offsets were committed."""

    @property
    def is_full(self) -> bool:
        """Whether no more records should be put in for now."""
        return self._in_flight >= self._capacity

    @property
    def in_flight(self) -> int:
        """Records put in and not yet committed."""
        return self._in_flight

    def start(self) -> None:
        """Start the tasks; an error that ends one of them is set on `failed`."""
        self._tasks = [
            asyncio.create_task(self._prepare_all(), name="prepare"),
            asyncio.create_task(self._apply_all(), name="apply"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def put(self, records: Sequence[LogRecord]) -> None:
        """Put a batch in; never waits (check `is_full` first)."""
        if not records:
            return
        self._in_flight += len(records)
        self._idle.clear()
        if self.is_full:
            self._room.clear()
        self._waiting.put_nowait(records)

    async def wait_for_room(self) -> None:
        """Wait until it is no longer full."""
        await self._room.wait()

    async def _prepare_all(self) -> None:
        while True:
            records = await self._waiting.get()
            await self._prepared.put(await self._indexer.prepare(records))

    async def _apply_all(self) -> None:
        while True:
            prepared = await self._prepared.get()
            await self._indexer.apply(prepared)
            await self._commit_of(prepared.records)
            self._in_flight -= len(prepared.records)
            self.committed += len(prepared.records)
            if not self.is_full:
                self._room.set()
            if self._in_flight == 0:
                self._idle.set()

    async def _commit_of(self, records: Sequence[LogRecord]) -> None:
        next_offsets: dict[int, int] = {}
        for record in records:
            position = record.position
            next_offsets[position.partition] = max(
                next_offsets.get(position.partition, 0), position.offset + 1
            )
        # The effects are durable; without the commit the next batch cannot be committed either.
        await until_available(
            lambda: self._commit(next_offsets),
            what="commit offsets",
            maximum=COMMIT_WAIT_SECONDS,
            is_away=self._broker_is_away,
        )

    async def drain(self, seconds: float) -> bool:
        """Wait for the records in flight; False if they do not finish within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def drop(self) -> None:
        """Drop all records in flight: they are not committed, so the next owner reads them again.

        Cancelling the tasks gives back their slots; see `consumers.indexing.slots`.
        """
        await self.stop()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        while not self._prepared.empty():
            self._prepared.get_nowait()
        self._in_flight = 0
        self._idle.set()
        self._room.set()
        self.start()

    async def stop(self) -> None:
        """Cancel the tasks without waiting for the records in flight."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
