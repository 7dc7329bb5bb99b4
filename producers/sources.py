"""All sources together: one reading of what is known, one state of health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from adapters.event_log import EventLog
from adapters.helpers import Helpers
from adapters.retry import until_available
from adapters.settings import WatcherSettings
from adapters.sources import Source
from producers.loading import load
from producers.status import Status, write
from producers.watcher import Watcher

if TYPE_CHECKING:
    from producers.listed import ListedSource

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5


class Sources:
    """The main folder, watched, and every other source, watched or listed.

    Args:
        settings: all of them.
        log: where `images` and `images.dlq` are.
    """

    def __init__(self, settings: WatcherSettings, log: EventLog) -> None:
        self._settings = settings
        self._log = log
        self._helpers = Helpers(2)
        self.main = Watcher(settings, log, self._helpers)
        self.others: dict[str, Watcher | ListedSource] = {
            source.name: self._other(source) for source in settings.images_sources
        }

    def _other(self, source: Source) -> Watcher | ListedSource:
        if source.is_local:
            return Watcher(self._settings, self._log, self._helpers, source)
        # Loads fsspec, which a watcher of folders alone can do without.
        from producers.listed import ListedSource

        return ListedSource(self._settings, self._log, source)

    async def run(self) -> None:
        """Work until cancelled; an error that is not a server's being down ends it."""
        everything = [self.main, *self.others.values()]
        places = {each.id_prefix: each.uri_prefix for each in everything}
        states = await until_available(lambda: load(self._log, places), what="read what is known")
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in everything:
                    tasks.create_task(each.run(states[each.id_prefix]))
                tasks.create_task(self._beat())
        finally:
            self._helpers.close()

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
            # A source that is away is no reason to call the process unwell.
            if main.attached or main.root_missing:
                await asyncio.to_thread(self._write_health)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await main.told.wait()
            main.told.clear()

    def _write_health(self) -> None:
        if self._settings.status_file is not None:
            others = {name: each.status for name, each in self.others.items()}
            write(self._settings.status_file, self.main.status, others)
        if self._settings.ready_file is not None:
            self._settings.ready_file.touch()
