"""The work of the group that fills the lake.

Partitions start where the lake ends; offsets are committed to Kafka only to make the lag visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from adapters.log.port import Committed, EventLog, LogRecord, Partition
from adapters.retry import until_available
from analytics.lake import TOPICS
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from consumers.process.background_work import BackgroundWork
from consumers.process.consumer_loop import ConsumerLoop
from consumers.process.group_work import GroupSettings

COMMIT_WAIT_SECONDS: Final = 2.0
READ_RECORDS: Final = 10_000
BATCH_WAIT_SECONDS: Final = 0.1
SESSION_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 2.0
FETCH_BYTES: Final = 32 * 1024 * 1024
PARTITION_FETCH_BYTES: Final = 8 * 1024 * 1024


class FilingWork(BackgroundWork):
    """A `GroupWork`: one task buffers records and writes them to the lake."""

    _member: ConsumerLoop[FilingWork]

    def __init__(self, writer: LakeWriter, *, capacity: int) -> None:
        """`capacity` is the number of unfiled records from which the work is full."""
        super().__init__()
        self._writer = writer
        self._capacity = capacity
        self._arrived: dict[Partition, list[LogRecord]] = {}
        """Records put in and not yet passed to the writer, which may be writing a file."""
        self._committed: Mapping[Partition, int] = {}
        self._has_arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        # Held while the writer is in use, but not while waiting for a server that is down.
        self._filing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def attach(self, member: ConsumerLoop[FilingWork]) -> None:
        """See `GroupWork.attach`."""
        self._member = member

    def start(self) -> None:
        """See `GroupWork.start`."""
        self._task = asyncio.create_task(self._run(), name="file")
        self._task.add_done_callback(self._note_end)

    async def stop(self) -> None:
        """See `GroupWork.stop`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def choose_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See `GroupWork.choose_offsets`: where the lake ends."""
        self._committed = {}
        return await self._writer.assigned(partitions)

    async def begin(self) -> None:
        """See `GroupWork.begin`."""

    def put(self, records: Mapping[Partition, Sequence[LogRecord]]) -> None:
        """See `GroupWork.put`."""
        for partition, batch in records.items():
            self._arrived.setdefault(partition, []).extend(batch)
        self._has_arrived.set()
        if self.is_full:
            self._has_room.clear()

    @property
    def is_full(self) -> bool:
        """See `GroupWork.is_full`."""
        return self._writer.waiting + sum(map(len, self._arrived.values())) >= self._capacity

    async def wait_for_room(self) -> None:
        """See `GroupWork.wait_for_room`."""
        await self._has_room.wait()

    async def give_up(self, seconds: float) -> None:
        """See `GroupWork.give_up`. A file that is being written cannot be interrupted."""
        async with self._filing:
            self._hand_to_writer()
            if self._writer.partitions:
                await self._writer.revoked()
            self._note_room()

    async def _run(self) -> None:
        while True:
            async with self._filing:
                self._hand_to_writer()
            if (wait := self._writer.due_in) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._has_arrived.wait()
                continue
            await until_available(self._file, what="file events")
            await self._commit(self._writer.ends())

    async def _commit(self, ends: Mapping[Partition, int]) -> None:
        if ends == self._committed:
            return
        # Set before the commit: an assignment during the commit resets it.
        self._committed = ends
        offsets = {partition: Committed(end) for partition, end in ends.items()}
        await until_available(
            lambda: self._member.commit(offsets),
            what="commit offsets",
            maximum=COMMIT_WAIT_SECONDS,
            is_away=self._member.broker_is_away,
        )

    def _hand_to_writer(self) -> None:
        self._writer.add(self._arrived)
        self._arrived = {}
        self._has_arrived.clear()

    async def _file(self) -> None:
        async with self._filing:
            self._hand_to_writer()
            for partition, offset in (await self._writer.flush()).items():
                # Records put in meanwhile were read from the wrong offset.
                self._arrived.pop(partition, None)
                self._member.continue_at(partition, offset)
            self._note_room()

    def _note_room(self) -> None:
        if not self.is_full:
            self._has_room.set()


def analytics_member(
    settings: AnalyticsSettings, writer: LakeWriter, log: EventLog
) -> ConsumerLoop[FilingWork]:
    """A member of the group that writes the events of all topics to the lake with `writer`."""
    work = FilingWork(writer, capacity=settings.flush_records)
    return ConsumerLoop(
        GroupSettings(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=settings.analytics_group,
            topics=TOPICS,
            max_records=READ_RECORDS,
            batch_wait=BATCH_WAIT_SECONDS,
            max_poll_interval=settings.max_poll_interval,
            session_timeout=SESSION_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            fetch_bytes=FETCH_BYTES,
            partition_fetch_bytes=PARTITION_FETCH_BYTES,
            keep_headers=False,
        ),
        work,
        log,
    )
