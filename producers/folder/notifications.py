"""Passes the kernel's file notifications from watchdog's threads to the event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver

from producers.rules import IGNORE_FILE, Rules

if TYPE_CHECKING or sys.platform.startswith("linux"):
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

logger = logging.getLogger(__name__)

# Without 'opened' and 'closed without writing', which the watcher's own reading would cause.
EVENTS: Final[list[type[FileSystemEvent]]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    DirAttribEvent,
]


class WatchLimit(Exception):
    """The kernel allows no more watches, so not every folder can be watched."""


@dataclass
class Changes:
    """The changes since the last call of `Mailbox.changes`.

    Attributes:
        files: path -> whether it is being written: True, False (closed or moved), None (unknown).
        skipped: path of a file or folder that is skipped by name -> True if it appeared, False if
            it disappeared.
        folders: directories that appeared, disappeared or moved.
        overflow: the kernel dropped events.
        unmounted: a watched file system was unmounted; its watches are gone.
        unwatched: why a folder could not be watched; None if all are.
    """

    files: dict[str, bool | None] = field(default_factory=dict)
    skipped: dict[str, bool] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    overflow: bool = False
    unmounted: bool = False
    unwatched: str | None = None


class Mailbox(FileSystemEventHandler):
    """Collects events in watchdog's threads. It holds each path once, however often it changes.

    Args:
        root: the watched folder, absolute.
        loop: the event loop to wake when something changes.
        rules: returns the present rules, which decide which names are reported.
    """

    def __init__(
        self, root: Path, loop: asyncio.AbstractEventLoop, rules: Callable[[], Rules]
    ) -> None:
        self._prefix = f"{str(root).rstrip('/')}/"
        self._root = str(root)
        self._loop = loop
        self._rules = rules
        self._lock = threading.Lock()
        self._changes = Changes()
        self._arrived = asyncio.Event()
        self._notified = False

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in its thread."""
        source = self._relative(event.src_path)
        target = self._relative(event.dest_path) if event.dest_path else None
        rules = self._rules()
        with self._lock:
            for path in (source, target):
                if path is None:
                    continue
                appeared = _appeared(event, is_target=path is target)
                if event.is_directory or not path:
                    self._changes.folders.add(path)
                    if appeared is not None and rules.skips(f"{path}/"):
                        self._changes.skipped[f"{path}/"] = appeared
                elif path == IGNORE_FILE or rules.includes(path):
                    self._file(path, event)
                elif appeared is not None and rules.skips(path):
                    self._changes.skipped[path] = appeared
                else:
                    continue
                self._notify()

    def overflowed(self) -> None:
        """Called in watchdog's thread when the kernel's queue was full."""
        with self._lock:
            self._changes.overflow = True
            self._notify()

    def unmounted(self) -> None:
        """Called in watchdog's thread when a watched file system was unmounted."""
        with self._lock:
            self._changes.unmounted = True
            self._notify()

    def unwatched(self, reason: str) -> None:
        """Called in watchdog's thread when a folder cannot be watched."""
        with self._lock:
            self._changes.unwatched = reason
            self._notify()

    async def changes(self) -> Changes:
        """Wait for a change, then return all changes and forget them."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            changes, self._changes = self._changes, Changes()
            self._notified = False
        return changes

    def _file(self, path: str, event: FileSystemEvent) -> None:
        files = self._changes.files
        if isinstance(event, FileModifiedEvent):
            files[path] = True
        elif isinstance(event, FileClosedEvent | FileMovedEvent):
            files[path] = False
        else:
            files.setdefault(path, None)

    def _notify(self) -> None:
        if not self._notified:
            self._notified = True
            # The loop is closed only while the process ends.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _relative(self, path: bytes | str) -> str | None:
        text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
        if text.startswith(self._prefix):
            return text[len(self._prefix) :]
        return "" if text == self._root else None


def _appeared(event: FileSystemEvent, *, is_target: bool) -> bool | None:
    """True if the path appeared, False if it disappeared, None for any other event."""
    if isinstance(event, FileMovedEvent | DirMovedEvent):
        return is_target
    if isinstance(event, FileCreatedEvent | DirCreatedEvent):
        return True
    return False if isinstance(event, FileDeletedEvent | DirDeletedEvent) else None


class Notifications:
    """Watches one root until closed.

    Raises:
        WatchLimit: the kernel allows no further inotify instance, or no watch on the root, or
            folders are nested too deeply for watchdog.
        OSError: the root cannot be watched.
    """

    def __init__(self, root: Path, mailbox: Mailbox) -> None:
        self._root = root
        self._mailbox = mailbox
        self._observer: BaseObserver | None = None

    def open(self) -> None:
        """Set the watches, which scans all folders. Blocks: call it in a thread."""
        try:
            observer = _observer(self._mailbox)
        except OSError as error:
            raise WatchLimit(str(error)) from error
        observer.schedule(self._mailbox, str(self._root), recursive=True, event_filter=EVENTS)
        try:
            observer.start()
        except RecursionError as error:
            observer.stop()
            raise WatchLimit("folders are nested too deeply") from error
        except OSError as error:
            observer.stop()
            if error.errno == errno.ENOSPC:  # how inotify_add_watch(2) reports its limit
                raise WatchLimit(str(error)) from error
            raise
        self._observer = observer

    def is_alive(self) -> bool:
        """Whether events still arrive; false after the root itself was deleted."""
        return (
            self._observer is not None
            and self._observer.is_alive()
            and all(emitter.is_alive() for emitter in self._observer.emitters)
        )

    def close(self) -> None:
        """Stop watching. Blocks until the threads have ended."""
        observer, self._observer = self._observer, None
        if observer is not None:
            try:
                observer.stop()
            except (OSError, KeyError) as error:
                # If its thread ended with an error, watchdog's bookkeeping is inconsistent.
                logger.warning("cannot remove the watches: %r", error)
            observer.join(timeout=10)


if TYPE_CHECKING or sys.platform.startswith("linux"):

    class _Inotify(InotifyFD):
        """Reports dropped events and refused watches, which watchdog only logs or hides."""

        def __init__(self, mailbox: Mailbox) -> None:
            super().__init__()
            self._mailbox = mailbox

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:  # from watchdog's own bookkeeping, such as KeyError
                # It is unknown what is still watched; `is_alive` becomes false, and all watches are
                # set again.
                logger.warning("reading events failed, setting the watches again: %r", error)

        def handle_event(self, event: InotifyEvent) -> None:
            try:
                super().handle_event(event)
            except (OSError, RecursionError) as error:
                # Otherwise the thread would end, and no more events would arrive.
                logger.warning("an event could not be handled: %r", error)
                self._mailbox.unwatched(repr(error))
                self._mailbox.overflowed()
            if event.is_queue_overflow:
                self._mailbox.overflowed()
            if event.mask & InotifyConstants.IN_UNMOUNT:
                self._mailbox.unmounted()

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            try:
                return super().add_callback(path, mask, callback, id_)
            except FileNotFoundError:
                raise
            except OSError as error:
                self._mailbox.unwatched(f"{path.decode('utf-8', 'backslashreplace')}: {error}")
                raise

    class _InotifyObserver(BaseObserver):
        """As watchdog's observer, with the inotify instance above."""

        def __init__(self, mailbox: Mailbox) -> None:
            self._fd = _Inotify(mailbox)
            self._fd.start()
            super().__init__(InotifyEmitter, inotify_fd=self._fd)

        def is_alive(self) -> bool:
            return super().is_alive() and self._fd.is_alive()

        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            self._fd.stop()
            self._fd.join()


def _observer(mailbox: Mailbox) -> BaseObserver:
    if sys.platform.startswith("linux"):
        return _InotifyObserver(mailbox)
    from watchdog.observers import Observer

    observer: BaseObserver = Observer()
    return observer
