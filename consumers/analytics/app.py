"""One member of the analytics group: read, buffer, write to the lake, then commit."""

from __future__ import annotations

import asyncio
import gc
import logging
from functools import partial

from adapters.bootstrap import connect_log
from adapters.helper_processes import HelperDied, HelperPool
from adapters.lifecycle import (
    run_until_first_ends,
    run_until_stopped,
    stop_on_signals,
)
from adapters.log.port import EventLog
from adapters.progress import Activity, Watchdog
from adapters.retry import until_available
from analytics.compaction import CompactionJob, Sweep, expire
from analytics.lake import Lake
from consumers.analytics.filing_work import FilingWork, analytics_member
from consumers.analytics.restore import restore_lost
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from consumers.process.backlog import Backlog
from consumers.process.consumer_loop import ConsumerLoop
from schemas.topics import SEARCHES

logger = logging.getLogger(__name__)

RESTORE_SECONDS = 5.0
STOP_SECONDS = 20.0


async def file_events(settings: AnalyticsSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        Stuck, LogLost, RebalanceFailed: the process should exit with an error and be restarted.
    """
    stop = stop_on_signals()
    # Events have no reference cycles, but tens of thousands of them trigger the garbage collector
    # all the time, which took two thirds of the time of reading them.
    gc.set_threshold(500_000, 20, 20)
    lake = Lake(settings.lake_url)
    async with connect_log(settings) as log:
        await run_until_stopped(
            _run_with_watchdog(settings, lake, log, stop), stop, seconds=STOP_SECONDS
        )


async def _run_with_watchdog(
    settings: AnalyticsSettings, lake: Lake, log: EventLog, stop: asyncio.Event
) -> None:
    writer = LakeWriter(
        lake, log, flush_records=settings.flush_records, flush_seconds=settings.flush_seconds
    )
    progress = FilingProgress(writer)
    activity = Activity("filing events", pending=progress.pending, achieved=progress.achieved)
    watchdog = Watchdog(
        [activity],
        stuck_seconds=settings.stuck_seconds,
        ready_file=settings.ready_file,
        end_process=True,
    )
    with activity.here():
        await run_until_first_ends(
            watchdog.run(), _join_and_file(settings, lake, log, stop, writer, progress, watchdog)
        )


async def _join_and_file(
    settings: AnalyticsSettings,
    lake: Lake,
    log: EventLog,
    stop: asyncio.Event,
    writer: LakeWriter,
    progress: FilingProgress,
    watchdog: Watchdog,
) -> None:
    async def join() -> ConsumerLoop[FilingWork]:
        member = analytics_member(settings, writer, log)
        await member.start()
        return member

    member = await until_available(join, what="Kafka")
    logger.info("filing events in %s", settings.lake_url)
    progress.joined = True
    watchdog.ready()
    helpers = HelperPool(1)
    try:
        await run_until_first_ends(
            stop.wait(),
            member.work.failed,
            progress.backlog.follow(member, lambda: f"{writer.filed} records filed"),
            _compact(settings, lake, writer, helpers),
            _restore(lake, log, writer),
        )
    finally:
        helpers.close()
        await member.stop()
        logger.info("stopped: %d records filed", writer.filed)


class FilingProgress:
    """What the watchdog observes: the pending work and the work done."""

    def __init__(self, writer: LakeWriter) -> None:
        self._writer = writer
        self.joined = False
        self.backlog = Backlog()

    def pending(self) -> int:
        """Unread records, plus 1 if a flush is due; 1 while the process starts."""
        return self.backlog.unread + (self._writer.due_in == 0) if self.joined else 1

    def achieved(self) -> object:
        """A value that changes whenever records are filed."""
        return (self.joined, self._writer.filed)


async def _restore(lake: Lake, log: EventLog, writer: LakeWriter) -> None:
    """Restore to the log what only the lake still holds, when alignment has found such a loss."""
    while True:
        await asyncio.sleep(RESTORE_SECONDS)
        # Only one member does this: the owner of the first partition.
        if (SEARCHES, 0) in writer.partitions:
            await until_available(lambda: restore_lost(log, lake), what="restore events")


async def _compact(
    settings: AnalyticsSettings, lake: Lake, writer: LakeWriter, helpers: HelperPool
) -> None:
    sweep = Sweep(lake)
    while True:
        await asyncio.sleep(settings.compact_seconds)
        if settings.retention_days:
            gone = await until_available(
                lambda: asyncio.to_thread(expire, lake, settings.retention_days), what="expire"
            )
            if gone:
                logger.info("deleted %d files older than %d days", gone, settings.retention_days)
        swept = await until_available(lambda: asyncio.to_thread(sweep.run), what="forget")
        if swept:
            logger.info("erased %d rows that were marked as forgotten", swept)
        for topic, partition in writer.partitions:
            job = CompactionJob(
                settings.lake_url,
                topic.name,
                partition,
                min_files=settings.compact_files,
                grace_seconds=settings.compact_grace_seconds,
            )
            await until_available(partial(_compact_partition, job, helpers), what="compact")


async def _compact_partition(job: CompactionJob, helpers: HelperPool) -> None:
    if not await asyncio.to_thread(job.is_due):
        return
    try:
        done = await helpers.run(CompactionJob.run, job)
    except HelperDied as error:
        logger.warning("compacting %s-%d failed: %s", job.topic, job.partition, error)
        return
    if done.written or done.removed:
        logger.info("compacted %s-%d: %s", job.topic, job.partition, done)


def main() -> None:
    """Run one member of the group until a signal stops it."""
    asyncio.run(file_events(AnalyticsSettings()))
