"""One member of the analytics group: read, gather, file, and only then commit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from adapters.bootstrap import connect_group, connect_log
from adapters.errors import Unavailable
from adapters.log.kafka_group import KafkaGroupReader
from adapters.log.port import EventLog, GroupReader
from adapters.progress import Activity, Watchdog, server_is_away
from adapters.retry import until_available
from analytics.compaction import Sweep, compact, expire
from analytics.lake import TOPICS, Lake
from consumers.analytics.restore import restore_lost
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from schemas.topics import SEARCHES

logger = logging.getLogger(__name__)

LAG_SECONDS = 15.0
RESTORE_SECONDS = 5.0
LAG_DEADLINE_SECONDS = 60.0
"""Longer than the client takes to find that its broker is away."""
READ_RECORDS = 10_000


async def run(settings: AnalyticsSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        Stuck, Rejected: the process should end with an error and be started again.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Events have no cycles, but by the tens of thousands they make the collector run all the time,
    # which took two thirds of the time of reading them.
    gc.set_threshold(500_000, 20, 20)
    lake = Lake(settings.lake_url)
    stopping = asyncio.create_task(stop.wait())
    async with connect_log(settings) as log:
        work = asyncio.create_task(_work(settings, lake, log, stop))
        try:
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
            # Servers may be down while we wait for them: a stop does not wait on.
            await asyncio.wait([work], timeout=20)
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            stopping.cancel()


async def _work(
    settings: AnalyticsSettings, lake: Lake, log: EventLog, stop: asyncio.Event
) -> None:
    writer = LakeWriter(
        lake, log, flush_records=settings.flush_records, flush_seconds=settings.flush_seconds
    )
    work = Work(writer)
    activity = Activity("filing events", pending=work.pending, achieved=work.achieved)
    watchdog = Watchdog(
        [activity],
        stuck_seconds=settings.stuck_seconds,
        ready_file=settings.ready_file,
        end_process=True,
    )
    with activity.here():
        await _first_of(
            watchdog.run(), _join_and_file(settings, lake, log, stop, writer, work, watchdog)
        )


async def _first_of(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run these until the first one ends, and raise its error; the others are cancelled."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _join_and_file(
    settings: AnalyticsSettings,
    lake: Lake,
    log: EventLog,
    stop: asyncio.Event,
    writer: LakeWriter,
    work: Work,
    watchdog: Watchdog,
) -> None:
    async def joined() -> KafkaGroupReader:
        reader = connect_group(
            settings,
            TOPICS,
            settings.analytics_group,
            writer,
            max_poll_interval=settings.max_poll_interval,
        )
        await reader.start()
        return reader

    reader = await until_available(joined, what="Kafka")
    logger.info("filing events in %s", settings.lake_url)
    work.joined = True
    watchdog.ready()
    try:
        await _first_of(
            _file(reader, writer, stop),
            _report(work, reader, writer),
            _compact(settings, lake, writer),
            _restore(lake, log, writer),
        )
    finally:
        # Leaving revokes the partitions, which files what waits.
        await reader.stop()
        logger.info("stopped: %d records filed", writer.filed)


async def _file(reader: GroupReader, writer: LakeWriter, stop: asyncio.Event) -> None:
    async def read_on() -> None:
        wait = min(writer.due_in, 0.5)
        if wait > 0:
            writer.add(await reader.read(timeout=wait, max_records=READ_RECORDS))

    async def write() -> None:
        for (topic, partition), offset in (await writer.flush()).items():
            reader.continue_at(topic, partition, offset)

    committed: dict[object, int] = {}
    while not stop.is_set():
        await until_available(read_on, what="read events")
        if writer.due_in == 0:
            await until_available(write, what="file events")
            if (ends := writer.ends()) != committed:
                await until_available(lambda: reader.commit(writer.ends()), what="commit")
                committed = dict(ends)


class Work:
    """What the watchdog looks at: how much there is to do, and what was done."""

    def __init__(self, writer: LakeWriter) -> None:
        self._writer = writer
        self.joined = False
        self.lag = 0

    def pending(self) -> int:
        """Records to be read or overdue to be filed; to start is work as well."""
        return self.lag + (self._writer.due_in == 0) if self.joined else 1

    def achieved(self) -> object:
        """How much was filed."""
        return (self.joined, self._writer.filed)


async def _report(work: Work, reader: GroupReader, writer: LakeWriter) -> None:
    """Ask now and then how much is waiting in the log, and say how it goes."""
    filed = writer.filed
    while True:
        await asyncio.sleep(LAG_SECONDS)
        try:
            async with asyncio.timeout(LAG_DEADLINE_SECONDS):
                work.lag = await reader.lag()
        except Unavailable as error:
            server_is_away("Kafka", str(error))
            continue
        except TimeoutError:
            # Not known to be an outage: if nothing is filed either, a restart may help.
            work.lag = max(work.lag, 1)
            continue
        if writer.filed != filed:
            filed = writer.filed
            logger.info("lag %d; %d records filed", work.lag, filed)


async def _restore(lake: Lake, log: EventLog, writer: LakeWriter) -> None:
    """Put back into the log what only the lake still has, wherever that was found to be so."""
    while True:
        await asyncio.sleep(RESTORE_SECONDS)
        # One member does it: the one that has the first partition.
        if (SEARCHES, 0) in writer.places:
            await until_available(lambda: restore_lost(log, lake), what="restore events")


async def _compact(settings: AnalyticsSettings, lake: Lake, writer: LakeWriter) -> None:
    sweep = Sweep(lake)
    while True:
        await asyncio.sleep(settings.compact_seconds)
        if settings.retention_days:
            gone = await until_available(
                lambda: asyncio.to_thread(expire, lake, settings.retention_days), what="expire"
            )
            if gone:
                logger.info("%d files of more than %d days", gone, settings.retention_days)
        swept = await until_available(lambda: asyncio.to_thread(sweep.run), what="forget")
        if swept:
            logger.info("%d rows taken out that were to be forgotten", swept)
        for topic, partition in writer.places:
            done = await until_available(
                lambda topic=topic, partition=partition: asyncio.to_thread(  # type: ignore[misc]
                    compact,
                    lake.current(),
                    topic.name,
                    partition,
                    min_files=settings.compact_files,
                    grace_seconds=settings.compact_grace_seconds,
                ),
                what="compact",
            )
            if done.written or done.removed:
                logger.info("compacted %s-%d: %s", topic.name, partition, done)


def main() -> None:
    """Run one member of the group until a signal ends it."""
    asyncio.run(run(AnalyticsSettings()))
