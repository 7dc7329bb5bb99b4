"""The indexer as a process: start, health, signals, end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from adapters.errors import Unavailable
from adapters.kafka_log import KafkaEventLog
from adapters.ports import ImageIndex
from adapters.provision import connect_index
from adapters.settings import IndexingSettings
from adapters.triton_clip import TritonEmbedder
from consumers.apps import IndexingApp
from consumers.budget import return_memory_promptly
from consumers.failures import RetryPolicy
from consumers.indexing import Indexer
from schemas.topics import IMAGES

logger = logging.getLogger("consumers")

BEAT_SECONDS = 2.0
LAG_SECONDS = 15.0


class Stuck(Exception):
    """There is work, the servers answer, and nothing happens: only a restart helps."""


async def indexing(settings: IndexingSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        TooMuchPoison, Stuck: the process should end with an error and be started again.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    embedder = TritonEmbedder(
        settings.triton_url,
        timeout=settings.triton_timeout,
        concurrency=settings.triton_concurrency,
    )
    index = connect_index(settings)
    workers = settings.decode_workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        async with KafkaEventLog(
            settings.kafka_bootstrap_servers, timeout=settings.kafka_timeout
        ) as log:
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
    retry = RetryPolicy(settings.retry_initial, settings.retry_maximum)
    spec = await retry.until_available(lambda: embedder.spec(settings.model_name), "Triton")
    collection = await retry.until_available(lambda: index.ensure_collection(spec), "Weaviate")
    indexer = Indexer(embedder, index, log, collection, spec, settings, pool)

    async def started() -> IndexingApp:
        app = IndexingApp(settings, indexer, group_id=f"indexing-{collection.name}")
        await app.start()
        return app

    app = await retry.until_available(started, "Kafka")
    logger.info("indexing %s into %s", IMAGES.name, collection.name)
    watching = asyncio.create_task(_watch(settings, app, indexer))
    stopping = asyncio.ensure_future(_until(stop))
    failed = app.lane.failed
    ends: list[asyncio.Future[None]] = [watching, failed]
    try:
        await asyncio.wait({*ends, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for ended in ends:
            if ended.done() and (error := ended.exception()):
                raise error
    finally:
        watching.cancel()
        stopping.cancel()
        await app.stop()
        indexer.close()
        logger.info("stopped: %s", indexer.counters)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _watch(settings: IndexingSettings, app: IndexingApp, indexer: Indexer) -> None:
    """Beat while all is well; end with an error when there is work and no progress."""
    behind_since: float | None = None
    lag_at = time.monotonic()
    reported = indexer.counters.received
    while True:
        if settings.ready_file is not None:
            settings.ready_file.touch()
        await asyncio.sleep(BEAT_SECONDS)
        now = time.monotonic()
        if app.lane.under_way or now - lag_at < LAG_SECONDS:
            continue
        lag_at = now
        try:
            behind = await app.lag()
        except Unavailable:
            continue  # The broker is down: aiokafka reconnects by itself.
        if indexer.counters.received != reported:
            reported = indexer.counters.received
            logger.info("lag %d; %s", behind, indexer.counters)
            behind_since = None
        elif behind == 0:
            behind_since = None
        elif behind_since is None:
            behind_since = now
        elif now - behind_since > settings.stuck_seconds:
            raise Stuck(f"{behind} records wait and none was read for {now - behind_since:.0f} s")


def main() -> None:
    """Run one member of the group until a signal ends it."""
    return_memory_promptly()
    asyncio.run(indexing(IndexingSettings()))
