"""All sources of the watcher, with one reading of the topic, one status and one heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from adapters.errors import Unavailable
from adapters.helper_processes import HelperPool
from adapters.log.port import EventLog
from adapters.progress import Activity, Watchdog
from adapters.retry import until_available
from imaging.sources.source import Source
from producers.folder.watcher import FolderWatcher
from producers.log.known_images import KnownImages
from producers.log.known_images_loader import load
from producers.log.loss_detection import LossDetectingLog
from producers.settings import WatcherSettings
from producers.status import SkippedReport, Status, write_status
from schemas.topics import IMAGES

if TYPE_CHECKING:
    from producers.bucket.watcher import BucketWatcher

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5
FOLLOW_SECONDS: Final = 10.0


class Sources:
    """The main folder, which is watched, and all other sources, watched or listed.

    Args:
        settings: of the whole watcher.
        log: where `images` and `images.dlq` are.
        end_process: see `adapters.progress.Watchdog`.
    """

    def __init__(
        self, settings: WatcherSettings, log: EventLog, *, end_process: bool = False
    ) -> None:
        self._settings = settings
        self._end_process = end_process
        self._is_loaded = False
        self._loading = Activity(
            "reading the known pictures",
            pending=lambda: int(not self._is_loaded),
            achieved=lambda: self._is_loaded,
        )
        self._skipped = SkippedReport(settings.status_file) if settings.status_file else None
        self._log = LossDetectingLog(log)
        self._helpers = HelperPool(2)
        self.main = FolderWatcher(settings, self._log, self._helpers)
        self.others: dict[str, FolderWatcher | BucketWatcher] = {
            source.name: self._other(source) for source in settings.images_sources
        }

    def _other(self, source: Source) -> FolderWatcher | BucketWatcher:
        if source.is_local:
            return FolderWatcher(self._settings, self._log, self._helpers, source)
        # Imports fsspec, which is needed for buckets only.
        from producers.bucket.watcher import BucketWatcher

        return BucketWatcher(self._settings, self._log, source)

    async def run(self) -> None:
        """Run until cancelled. Any error but an unavailable server ends it.

        The watchdog ends it, and the heartbeat, if a source makes no progress.
        """
        everything = {"": self.main, **self.others}
        activities = {name: self._activity(name, each) for name, each in everything.items()}
        watchdog = Watchdog(
            [self._loading, *activities.values()],
            stuck_seconds=self._settings.stuck_seconds,
            end_process=self._end_process,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watchdog.run())
                states = await self._load()
                for name, each in everything.items():
                    with activities[name].here():
                        tasks.create_task(each.run(states[each.id_prefix]))
                tasks.create_task(self._beat())
                tasks.create_task(self._follow_log())
        finally:
            self._helpers.close()

    async def _follow_log(self) -> None:
        """Check periodically that the log still holds all records that were read or written.

        Raises:
            LogLost: the topic was created again, or lost its newest records in a crash.
        """
        while True:
            try:
                await self._log.bounds(IMAGES)
            except Unavailable as error:
                logger.info("cannot check the log: %s", error)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _load(self) -> dict[str, KnownImages]:
        uri_prefixes = {
            each.id_prefix: each.uri_prefix for each in (self.main, *self.others.values())
        }
        with self._loading.here():
            states = await until_available(
                lambda: load(self._log, uri_prefixes), what="read the known pictures"
            )
        self._is_loaded = True
        return states

    def _activity(self, name: str, source: FolderWatcher | BucketWatcher) -> Activity:
        # The callables are set when the source runs.
        return Activity(
            f"the source {name or 'IMAGES_DIR'}",
            pending=lambda: source.status.at_work(),
            achieved=lambda: source.status.steps(),
        )

    def request_scan(self, *, confirm_removals: bool = False) -> None:
        """Compare everything soon; with `confirm_removals`, admit mass removals once."""
        for each in (self.main, *self.others.values()):
            each.request_scan(confirm_removals=confirm_removals)

    def statuses(self) -> dict[str, Status]:
        """Status by source name; the main folder's is under ""."""
        return {"": self.main.status, **{n: each.status for n, each in self.others.items()}}

    async def _beat(self) -> None:
        while True:
            main = self.main.status
            now = main.write_soon.is_set()
            main.write_soon.clear()
            # The process is healthy even if a source is missing.
            if main.attached or main.root_missing:
                await asyncio.to_thread(self._write_health, now=now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await main.write_soon.wait()

    def _write_health(self, *, now: bool) -> None:
        if self._skipped is not None:
            # Before the status, which announces the end of a comparison.
            skipped = {name: status.skipped for name, status in self.statuses().items()}
            self._skipped.write(skipped, now=now)
        if self._settings.status_file is not None:
            others = {name: each.status for name, each in self.others.items()}
            write_status(self._settings.status_file, self.main.status, others)
        if self._settings.ready_file is not None:
            self._settings.ready_file.touch()
