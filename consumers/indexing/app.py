"""The indexer as a process: start, health, signals, end."""

from __future__ import annotations

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple

from adapters.bootstrap import connect_embedder, connect_index, connect_log
from adapters.embedder.triton import TritonEmbedder
from adapters.errors import Rejected, Unavailable
from adapters.index.port import Collection, ImageIndex
from adapters.log.kafka import KafkaEventLog
from adapters.log.port import EventLog
from adapters.progress import Activity, Watchdog, server_is_away
from adapters.provision import activate_if_none_is, recovered_collection
from consumers.indexing.failures import RetryPolicy
from consumers.indexing.indexer import Indexer
from consumers.indexing.orphans import Orphans
from consumers.indexing.settings import IndexingSettings
from consumers.indexing.subscriber import IndexingApp
from imaging.sandbox.allocator import return_memory_promptly
from imaging.sandbox.pool import workers_of
from schemas.topics import IMAGES

logger = logging.getLogger("consumers")

LAG_SECONDS = 15.0
FOLLOW_SECONDS = 5.0
LAG_DEADLINE_SECONDS = 10.0


async def indexing(settings: IndexingSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        TooMuchPoison, Stuck: the process should end with an error and be started again.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    embedder = connect_embedder(settings)
    index = connect_index(settings)
    workers = workers_of(settings.decode_workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        async with connect_log(settings) as log:
            work = asyncio.create_task(_index(settings, embedder, index, log, pool, stop))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    # Servers may be down while we wait for them to start: do not wait on.
                    await asyncio.wait([work], timeout=settings.shutdown_grace + 5)
                if not work.done():
                    work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                if not work.cancelled() and (error := work.exception()):
                    raise error
            finally:
                stopping.cancel()
                await asyncio.gather(embedder.close(), index.close())


async def _index(
    settings: IndexingSettings,
    embedder: TritonEmbedder,
    index: ImageIndex,
    log: KafkaEventLog,
    pool: ThreadPoolExecutor,
    stop: asyncio.Event,
) -> None:
    work = Work()
    activity = Activity("indexing", pending=work.pending, achieved=work.achieved)
    watchdog = Watchdog(
        [activity],
        stuck_seconds=settings.stuck_seconds,
        ready_file=settings.ready_file,
        end_process=True,
    )
    with activity.here():
        working = asyncio.create_task(
            _work(settings, embedder, index, log, pool, stop, work, watchdog)
        )
        watching = asyncio.create_task(watchdog.run())
        try:
            await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
            for ended in (watching, working):
                if ended.done():
                    ended.result()
        finally:
            watching.cancel()
            if not working.done():
                working.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)


async def _work(
    settings: IndexingSettings,
    embedder: TritonEmbedder,
    index: ImageIndex,
    log: KafkaEventLog,
    pool: ThreadPoolExecutor,
    stop: asyncio.Event,
    work: Work,
    watchdog: Watchdog,
) -> None:
    retry = RetryPolicy(settings.retry_initial, settings.retry_maximum)
    spec = await retry.until_available(lambda: embedder.spec(settings.model_name), "Triton")
    collection = await retry.until_available(
        lambda: recovered_collection(index, log, spec), "Weaviate"
    )
    indexer = Indexer(embedder, index, log, collection, spec, settings, pool)

    orphans = work.orphans = Orphans(index, collection, settings, log)

    async def begins_anew() -> None:
        # A collection of pictures and a group that does not know the log, which has lost some.
        await retry.until_available(orphans.remove, "Weaviate")

    async def started() -> IndexingApp:
        app = IndexingApp(settings, indexer, collection.group, log, begins_anew)
        await app.start()
        return app

    app = await retry.until_available(started, "Kafka")
    logger.info("indexing %s into %s", IMAGES.name, collection.name)
    work.app, work.indexer = app, indexer
    watchdog.ready()
    reporting = asyncio.create_task(_report(work, app, indexer))
    following = asyncio.create_task(_follow(index, log, collection))
    looking = asyncio.create_task(_follow_log(app))
    stopping = asyncio.ensure_future(_until(stop))
    failed = app.lane.failed
    ends: list[asyncio.Future[None]] = [reporting, following, looking, failed]
    try:
        await asyncio.wait({*ends, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for ended in ends:
            if ended.done() and (error := ended.exception()):
                raise error
    finally:
        reporting.cancel()
        following.cancel()
        looking.cancel()
        stopping.cancel()
        await app.stop()
        indexer.close()
        logger.info("stopped: %s", indexer.counters)


class CollectionLost(Exception):
    """The collection that was being filled is gone: to begin anew makes it again, and fills it."""


async def _follow(index: ImageIndex, log: EventLog, collection: Collection) -> None:
    """Look now and then whether the collection is still the one that is being filled, and whether
    searches have one.

    Raises:
        CollectionLost: it is not, as when Weaviate came back without its data.
    """
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            found = await index.find(collection.name)
            if found == collection:
                await activate_if_none_is(index, log, collection)
        except Rejected:
            found = None  # It does not say any more what it is.
        except Unavailable:
            continue
        if found != collection:
            raise CollectionLost(f"{collection.name} is gone, or was made anew by somebody else")


async def _follow_log(app: IndexingApp) -> None:
    """Look now and then whether the log still holds what was read of it.

    Raises:
        LogLost: it does not, as when Kafka came back without its last records.
    """
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        with suppress(Unavailable):
            await app.look()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


class Work:
    """What the watchdog looks at: how much there is to do, and what was done."""

    def __init__(self) -> None:
        self.app: IndexingApp | None = None
        self.indexer: Indexer | None = None
        self.orphans: Orphans | None = None
        self.lag = 0

    def pending(self) -> int:
        """Records in flight or waiting in the log; to start is work as well."""
        return 1 if self.app is None else max(self.app.lane.under_way, self.lag)

    def achieved(self) -> object:
        """Every step that a record has made."""
        if self.app is None or self.indexer is None:
            return None
        looked_at = self.orphans.looked_at if self.orphans else 0
        return (self.app.lane.committed, astuple(self.indexer.counters), looked_at)


async def _report(work: Work, app: IndexingApp, indexer: Indexer) -> None:
    """Ask now and then how much is waiting in the log, and say how it goes."""
    reported = indexer.counters.received
    while True:
        await asyncio.sleep(LAG_SECONDS)
        # Asked even if the answer is known: a member that rejoins asks the broker nothing.
        if await app.broker_is_away():
            server_is_away("Kafka", "does not answer")
            continue
        try:
            async with asyncio.timeout(LAG_DEADLINE_SECONDS):
                work.lag = await app.lag()
        except (Unavailable, TimeoutError) as error:
            # The broker answers others, so this is the consumer's own trouble, if it lasts.
            work.lag = max(work.lag, 1)
            logger.warning("the lag is not known: %s", error or "no answer in time")
            continue
        if indexer.counters.received != reported:
            reported = indexer.counters.received
            logger.info("lag %d; %s", work.lag, indexer.counters)


def main() -> None:
    """Run one member of the group until a signal ends it."""
    return_memory_promptly()
    asyncio.run(indexing(IndexingSettings()))
