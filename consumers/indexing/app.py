"""The indexer as a process: wiring, start and shutdown."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple

from adapters.bootstrap import Connections, connections
from adapters.errors import Rejected, Unavailable
from adapters.index.port import Collection, ImageIndex
from adapters.lifecycle import (
    run_until_first_ends,
    run_until_stopped,
    stop_on_signals,
)
from adapters.log.port import EventLog
from adapters.progress import Activity, Watchdog
from adapters.provision import activate_if_none_is, recovered_collection
from consumers.indexing.failures import RetryPolicy
from consumers.indexing.indexer import Indexer
from consumers.indexing.indexing_work import IndexingWork, indexing_member
from consumers.indexing.orphans import Orphans
from consumers.indexing.settings import IndexingSettings
from consumers.process.backlog import Backlog
from consumers.process.consumer_loop import ConsumerLoop
from imaging.sandbox.allocator import return_memory_promptly
from imaging.sandbox.pool import worker_count
from schemas.topics import IMAGES

logger = logging.getLogger("consumers")

CHECK_SECONDS = 5.0


async def index_images(settings: IndexingSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        TooMuchPoison, Stuck, CollectionLost, LogLost, RebalanceFailed: the process should exit with
            an error and be restarted.
    """
    stop = stop_on_signals()
    workers = worker_count(settings.decode_workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        async with connections(settings) as servers:
            await run_until_stopped(
                _run_with_watchdog(settings, servers, pool, stop),
                stop,
                seconds=settings.shutdown_grace + 5,
            )


async def _run_with_watchdog(
    settings: IndexingSettings,
    servers: Connections,
    pool: ThreadPoolExecutor,
    stop: asyncio.Event,
) -> None:
    progress = IndexingProgress()
    activity = Activity("indexing", pending=progress.pending, achieved=progress.achieved)
    watchdog = Watchdog(
        [activity],
        stuck_seconds=settings.stuck_seconds,
        ready_file=settings.ready_file,
        end_process=True,
    )
    with activity.here():
        await run_until_first_ends(
            watchdog.run(),
            _join_and_index(settings, servers, pool, stop, progress, watchdog),
        )


async def _join_and_index(
    settings: IndexingSettings,
    servers: Connections,
    pool: ThreadPoolExecutor,
    stop: asyncio.Event,
    progress: IndexingProgress,
    watchdog: Watchdog,
) -> None:
    embedder, index, log = servers.embedder, servers.index, servers.log
    retry = RetryPolicy(settings.retry_initial, settings.retry_maximum)
    spec = await retry.until_available(lambda: embedder.spec(settings.model_name), "Triton")
    collection = await retry.until_available(
        lambda: recovered_collection(index, log, spec), "Weaviate"
    )
    indexer = Indexer(embedder, index, log, collection, spec, settings, pool)
    orphans = progress.orphans = Orphans(index, collection, settings, log)

    async def remove_orphans() -> None:
        # A log that has lost records may also have lost the removals of indexed images.
        await retry.until_available(orphans.remove, "Weaviate")

    async def join() -> ConsumerLoop[IndexingWork]:
        member = indexing_member(settings, indexer, collection.group, log, remove_orphans)
        await member.start()
        return member

    member = await retry.until_available(join, "Kafka")
    logger.info("indexing %s into %s", IMAGES.name, collection.name)
    progress.member, progress.indexer = member, indexer
    watchdog.ready()
    try:
        await run_until_first_ends(
            stop.wait(),
            member.work.failed,
            progress.backlog.follow(member, lambda: indexer.counters),
            _check_collection(index, log, collection),
            _check_log(member),
        )
    finally:
        await member.stop()
        indexer.close()
        logger.info("stopped: %s", indexer.counters)


class CollectionLost(Exception):
    """The collection being filled is gone. The process exits; its restart creates it again."""


async def _check_collection(index: ImageIndex, log: EventLog, collection: Collection) -> None:
    """Check periodically that the collection is still the one being filled, and that searches have
    an active collection.

    Raises:
        CollectionLost: it is not, for instance because Weaviate restarted without its data.
    """
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            found = await index.find(collection.name)
            if found == collection:
                await activate_if_none_is(index, log, collection)
        except Rejected:
            found = None  # Its description is gone or unreadable.
        except Unavailable:
            continue
        if found != collection:
            raise CollectionLost(f"{collection.name} is gone, or was recreated by another process")


async def _check_log(member: ConsumerLoop[IndexingWork]) -> None:
    """Check periodically that the log still holds the records that were read from it.

    Raises:
        LogLost: it does not, for instance because Kafka restarted without its last records.
    """
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        with suppress(Unavailable):
            await member.check_log()


class IndexingProgress:
    """What the watchdog observes: the pending work and the work done."""

    def __init__(self) -> None:
        self.member: ConsumerLoop[IndexingWork] | None = None
        self.indexer: Indexer | None = None
        self.orphans: Orphans | None = None
        self.backlog = Backlog()

    def pending(self) -> int:
        """Records in flight or unread in the log; 1 while the process starts."""
        if self.member is None:
            return 1
        return self.member.work.pipeline.in_flight + self.backlog.unread

    def achieved(self) -> object:
        """A value that changes with every step of any record."""
        if self.member is None or self.indexer is None:
            return None
        checked = self.orphans.checked if self.orphans else 0
        return (self.member.work.pipeline.committed, astuple(self.indexer.counters), checked)


def main() -> None:
    """Run one member of the group until a signal stops it."""
    return_memory_promptly()
    asyncio.run(index_images(IndexingSettings()))
