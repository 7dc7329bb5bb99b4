"""Keeps `images` in step with a folder by a first scan, notifications, and further scans."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Container
from pathlib import Path
from typing import Final

from adapters.helper_processes import HelperPool
from adapters.log.port import EventLog
from imaging.sources.mounts import Mounts
from imaging.sources.source import Source
from producers.events import EventFactory
from producers.folder.components import build_components
from producers.folder.mount_points import MountPoints
from producers.folder.notifications import Changes, Mailbox, Notifications, WatchLimit
from producers.folder.reconcile import Difference
from producers.folder.root_identity import RootIdentity, identify_root
from producers.folder.scan_schedule import ScanSchedule
from producers.folder.tree import RootGone
from producers.guard import RemovalGuards
from producers.known_image import UNKNOWN
from producers.log.known_images import KnownImages
from producers.log.vanished_letters import VanishedLetters
from producers.rules import IGNORE_FILE, Rules, load_rules
from producers.settings import WatcherSettings
from producers.status import ScanProgressLog, Status

logger = logging.getLogger(__name__)

ROOT_CHECK_SECONDS: Final = 1.0
HELD_RETRY_SECONDS: Final = 10.0
FALLBACK_POLL_SECONDS: Final = 10.0
"""Interval of scans if the kernel could not watch the whole tree."""


class FolderWatcher:
    """Watches one folder until cancelled.

    Args:
        settings: of the whole watcher; the main folder is `images_dir`.
        log: where `images` and `images.dlq` are.
        helpers: processes that examine files when there are very many.
        source: a folder other than the main one, whose ids start with its name.
    """

    def __init__(
        self,
        settings: WatcherSettings,
        log: EventLog,
        helpers: HelperPool,
        source: Source | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._helpers = helpers
        self._root = Path(source.folder if source else settings.images_dir).resolve()
        self.id_prefix = source.prefix if source else ""
        self.uri_prefix = f"{self._root.as_uri().rstrip('/')}/"
        self._patterns = settings.ignore_patterns
        if source is None:
            # Ids below a folder of that name would be the ids of the source.
            self._patterns += tuple(f"/{other.name}/" for other in settings.images_sources)
        self._rules = Rules()  # Replaced before the first scan.
        self._identity: RootIdentity | None = None
        share, allow = settings.mass_removal_share, settings.allow_mass_removal
        self._guard = RemovalGuards(share, allow=allow, mounts=lambda: self._mounts)
        self._mount_points = MountPoints(lambda: self._mounts)
        self._just_attached = False
        self._notifications: Notifications | None = None
        self._mailbox: Mailbox | None = None
        self._poll_seconds = settings.poll_seconds
        self._schedule = ScanSchedule()
        self._confirmed = False
        self._progress_log = ScanProgressLog()
        self._before = 0
        self._scan_seconds = 0.0
        self.status = Status(str(source.folder if source else settings.images_dir))

    async def run(self, state: KnownImages) -> None:
        """Run until cancelled. Any error but an unavailable server ends it.

        `state` holds the known images of this folder; see `producers.log.known_images_loader.load`.
        """
        self.status.known = lambda: len(state)
        self.status.at_work = lambda: self._pipeline.at_work + self._reconciler.at_work
        self.status.steps = lambda: (self._pipeline.steps, self._reconciler.steps)
        parts = build_components(
            self._settings,
            self._log,
            self._helpers,
            self._root,
            EventFactory(self.id_prefix, self.uri_prefix),
            state,
            guard=self._guard,
            rules=lambda: self._rules,
            removable=self._is_same_root,
            mounts=self._mount_points,
            skipped=self.status.skipped,
        )
        self._state, self._pipeline, self._reconciler = state, parts.pipeline, parts.reconciler
        self._vanished = VanishedLetters(self._log, self._settings.images_sources, self.id_prefix)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pipeline.run())
                tasks.create_task(self._watch_root())
                tasks.create_task(self._scan_forever())
                tasks.create_task(self._vanished.keep_settling(state))
                tasks.create_task(self._beat())
        finally:
            await parts.writer.close()
            await self._detach()

    def request_scan(self, *, confirm_removals: bool = False) -> None:
        """Scan the whole folder soon; with `confirm_removals`, admit mass removals once."""
        self._confirmed = self._confirmed or confirm_removals
        self._schedule.request("", 0.0)

    # The root

    @property
    def _mounts(self) -> Mounts:
        """What is mounted below the root, as of the last check (every second)."""
        return self._identity.table.mounts if self._identity is not None else Mounts()

    async def _watch_root(self) -> None:
        missing = ""
        listener: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    identity = await asyncio.to_thread(identify_root, self._root)
                except RootGone as error:
                    if str(error) != missing:
                        logger.error(
                            "THE FOLDER IS GONE: %s. Nothing is removed from the index; "
                            "waiting for it to come back.",
                            error,
                        )
                    missing, self._identity = str(error), None
                    self.status.root_missing = missing
                else:
                    missing = self.status.root_missing = ""
                    if identity != self._identity or not self._events_arrive():
                        if listener is not None:
                            listener.cancel()
                            await asyncio.gather(listener, return_exceptions=True)
                        await self._detach()
                        listener = await self._attach(identity)
                    else:
                        self._identity = identity  # Mounts elsewhere may have changed.
                if listener is not None and listener.done():
                    listener.result()
                await asyncio.sleep(ROOT_CHECK_SECONDS)
        finally:
            if listener is not None:
                listener.cancel()

    async def _attach(self, identity: RootIdentity) -> asyncio.Task[None] | None:
        """Watch first, then scan, so that no change is missed in between."""
        await self._read_rules()
        listener = None
        if not self._settings.poll_seconds:
            mailbox = Mailbox(self._root, asyncio.get_running_loop(), lambda: self._rules)
            notifications = Notifications(self._root, mailbox)
            try:
                await asyncio.to_thread(notifications.open)
            except WatchLimit as error:
                self._fall_back_to_polling(str(error))
            except OSError as error:
                logger.warning("cannot watch %s: %s", self._root, error)
                return None
            else:
                self._mailbox, self._notifications = mailbox, notifications
                listener = asyncio.create_task(self._listen(mailbox))
        logger.info(
            "watching %s (%s)",
            self._root,
            f"polling every {self._poll_seconds:g} s" if self._poll_seconds else "notifications",
        )
        self._identity, self._just_attached = identity, True
        self.status.attached = True
        self._schedule.request("", 0.0)
        return listener

    async def _detach(self) -> None:
        notifications, self._notifications = self._notifications, None
        if notifications is not None:
            await asyncio.to_thread(notifications.close)

    def _events_arrive(self) -> bool:
        return self._notifications is None or self._notifications.is_alive()

    async def _is_same_root(self) -> bool:
        """Whether the folder at the path is still the one that was scanned and watched."""
        if self._identity is None:
            return False
        try:
            identity = await asyncio.to_thread(identify_root, self._root)
        except RootGone:
            return False
        if identity != self._identity:
            return False
        self._identity = identity
        return True

    # Events

    async def _listen(self, mailbox: Mailbox) -> None:
        while True:
            self._apply_changes(await mailbox.changes())
            # Saving a file causes several events; take them together.
            await asyncio.sleep(0.02)

    def _apply_changes(self, changes: Changes) -> None:
        for path, writing in changes.files.items():
            if path == IGNORE_FILE:
                self._schedule.request("", self._settings.quiet_seconds)
            else:
                self._pipeline.touched(path, writing=writing)
        self.status.skipped.apply_events(changes.skipped, self._rules.judge_path)
        for folder in changes.folders:
            if self._rules.reaches(folder):
                self._schedule.request(folder, self._settings.quiet_seconds)
        if changes.overflow:
            logger.warning("the kernel dropped events: scanning the whole folder")
            self.status.overflows += 1
            self._schedule.request("", 0.0)
        if changes.unmounted:
            logger.warning("a file system inside %s was unmounted", self._root)
            self._identity = None
        if changes.unwatched is not None:
            self._fall_back_to_polling(changes.unwatched)

    def _fall_back_to_polling(self, reason: str) -> None:
        if not self._poll_seconds:
            self._poll_seconds = FALLBACK_POLL_SECONDS
            logger.warning(
                "cannot watch every folder (%s): also scanning all of them every %g s; "
                "raise fs.inotify.max_user_watches to avoid this",
                reason,
                self._poll_seconds,
            )

    # Scans

    async def _scan_forever(self) -> None:
        while True:
            tops = self._schedule.take()
            for top in tops:
                if self._identity is not None:
                    try:
                        await self._scan(top)
                    except RootGone:  # logged by `_watch_root`, unless it lasts only for a moment
                        self._schedule.request(top, ROOT_CHECK_SECONDS)
            if not tops:
                await self._schedule.wait()

    async def _scan(self, top: str) -> None:
        if not top:
            await self._read_rules()
        confirmed, self._confirmed = self._confirmed and not top, self._confirmed and bool(top)
        emptiable, identity = self._just_attached, self._identity
        self._before = len(self._state)
        self.status.scanning = lambda: self._reconciler.running
        await self._pipeline.finish_batches()
        difference = await self._reconciler.compare(top, self._rules)
        # Additions are published before removals, so that a renamed image is never missing.
        await self._pipeline.drain()
        if confirmed:
            self._guard.confirm()
        try:
            held = await self._remove(difference, attached=emptiable, whole=not top)
        finally:
            self._guard.unconfirm()
        if not top:
            await self._publish_again(set(difference.missing) if held else set())
            self._finish(difference, held=held)
            if identity == self._identity and not held:
                self._just_attached = False

    async def _remove(self, difference: Difference, *, attached: bool, whole: bool) -> bool:
        """Publish the removals of a scan; True if some are held back."""
        missing = difference.missing
        if not (missing or difference.left_out):
            return False
        if not await self._is_same_root():
            return True
        # Before the others: while they are known images, they would count in the share.
        await self._pipeline.process(difference.left_out)
        admitted = self._guard.admitted(
            missing,
            self._state,
            time.monotonic(),
            present=difference.on_mounts if attached else None,
            whole=whole,
        )
        await self._pipeline.process(admitted)
        return len(admitted) < len(missing)

    async def _publish_again(self, held: Container[str]) -> None:
        """Publish again the unchanged images whose files an indexer did not find."""
        paths = [path for path in await self._vanished.settle(self._state) if path not in held]
        for path in paths:
            self._state.put(path, UNKNOWN._replace(mount=self._mount_points.of(path)))
        await self._pipeline.process(paths)
        await self._vanished.settle_published(paths, self._state)

    def _finish(self, difference: Difference, *, held: bool) -> None:
        if not held:
            self._guard.release()
        again = self._poll_seconds or self._settings.reconcile_seconds
        if held and self._guard.needs_another_scan:
            again = min(again, HELD_RETRY_SECONDS)
        self._scan_seconds = difference.seconds
        self._schedule.request("", self._pause(again))
        # Before `reconciled`: a command that waits for the end of the scan then reads its results.
        self._update_status()
        self.status.reconciled()
        logger.info("%s%s", difference.summary(), " (held back)" if held else "")

    def _pause(self, seconds: float) -> float:
        """At most a tenth of the time is spent scanning, unless polling is configured."""
        return seconds if self._settings.poll_seconds else max(seconds, 10 * self._scan_seconds)

    async def _read_rules(self) -> None:
        settings = self._settings
        self._rules = await asyncio.to_thread(load_rules, self._root, self._patterns, settings)

    # Health

    async def _beat(self) -> None:
        while True:
            if self._guard.needs_another_scan:
                self._schedule.request("", self._pause(HELD_RETRY_SECONDS))
            self._update_status()
            running = self._reconciler.running
            if running is not None:
                self._progress_log.log_if_due(running, self._before, self._pipeline.counters.added)
            await asyncio.sleep(0.25)

    def _update_status(self) -> None:
        self.status.waiting = self._pipeline.waiting
        self.status.held, self.status.held_reason = self._guard.held, self._guard.reason
        self.status.counters = self._pipeline.counters
        self.status.poll_seconds = self._poll_seconds
