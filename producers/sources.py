"""All sources together: one reading of what is known, one state of health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from adapters.errors import Unavailable
from adapters.log.port import EventLog
from adapters.progress import Activity, Watchdog
from adapters.retry import until_available
from imaging.sources.source import Source
from producers.folder.watcher import Watcher
from producers.helper_processes import Helpers
from producers.known_images import State
from producers.known_images_loader import load
from producers.log_follower import FollowedLog
from producers.settings import WatcherSettings
from producers.status import SkippedFile, Status, write
from schemas.topics import IMAGES

if TYPE_CHECKING:
    from producers.bucket.watcher import ListedSource

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5
FOLLOW_SECONDS: Final = 10.0


class Sources:
    """The main folder, watched, and every other source, watched or listed.

    Args:
        settings: all of them.
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
            "reading what is known",
            pending=lambda: int(not self._is_loaded),
            achieved=lambda: self._is_loaded,
        )
        self._skipped = SkippedFile(settings.status_file) if settings.status_file else None
        self._log = FollowedLog(log)
        self._helpers = Helpers(2)
        self.main = Watcher(settings, self._log, self._helpers)
        self.others: dict[str, Watcher | ListedSource] = {
            source.name: self._other(source) for source in settings.images_sources
        }

    def _other(self, source: Source) -> Watcher | ListedSource:
        if source.is_local:
            return Watcher(self._settings, self._log, self._helpers, source)
        # Loads fsspec, which a watcher of folders alone can do without.
        from producers.bucket.watcher import ListedSource

        return ListedSource(self._settings, self._log, source)

    async def run(self) -> None:
        """Work until cancelled; an error that is not a server's being down ends it.

        What the watchdog finds stuck ends it too, and with it the heartbeat.
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
        """Look now and then whether the log still holds all that was read from it or written.

        Raises:
            LogLost: it does not: it was made anew, or a crash took its end.
        """
        while True:
            try:
                await self._log.bounds(IMAGES)
            except Unavailable as error:
                logger.info("the log cannot be looked at: %s", error)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _load(self) -> dict[str, State]:
        places = {each.id_prefix: each.uri_prefix for each in (self.main, *self.others.values())}
        with self._loading.here():
            states = await until_available(
                lambda: load(self._log, places), what="read what is known"
            )
        self._is_loaded = True
        return states

    def _activity(self, name: str, source: Watcher | ListedSource) -> Activity:
        # What they are is known once they run.
        return Activity(
            f"the source {name or 'IMAGES_DIR'}",
            pending=lambda: source.status.at_work(),
            achieved=lambda: source.status.steps(),
        )

    def request_scan(self, *, confirm_removals: bool = False) -> None:
        """Compare everything soon; once, let mass removals pass."""
        for each in (self.main, *self.others.values()):
            each.request_scan(confirm_removals=confirm_removals)

    def statuses(self) -> dict[str, Status]:
        """The state of each source; that of the main folder is under ""."""
        return {"": self.main.status, **{n: each.status for n, each in self.others.items()}}

    async def _beat(self) -> None:
        while True:
            main = self.main.status
            told = main.told.is_set()
            main.told.clear()
            # A source that is away is no reason to call the process unwell.
            if main.attached or main.root_missing:
                await asyncio.to_thread(self._write_health, told=told)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await main.told.wait()

    def _write_health(self, *, told: bool) -> None:
        if self._skipped is not None:
            # Before the status, which says that a comparison has ended.
            passed = {name: status.passed for name, status in self.statuses().items()}
            self._skipped.write(passed, now=told)
        if self._settings.status_file is not None:
            others = {name: each.status for name, each in self.others.items()}
            write(self._settings.status_file, self.main.status, others)
        if self._settings.ready_file is not None:
            self._settings.ready_file.touch()
