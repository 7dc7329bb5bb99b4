"""Examines files: whether they exist and are complete, and their content. Runs in threads."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from imaging.media_types import HEAD_BYTES, sniff_media_type
from producers.content_hash import CHUNK_BYTES, ContentHash
from producers.events import EventFactory
from producers.folder.tree import is_plain_directory
from producers.known_image import FileStat, KnownImage, ListedStat, file_stat
from producers.paths import is_utf8
from producers.rules import TO_EXAMINE, Rules
from producers.skipped import Examined, SkipReason

STALLED_SECONDS: Final = 600.0
"""If a file was not modified for this long, a scan does not check for an open writer. Closing it
raises an event."""

# The kernel grants a read lease only on a file that is not open for writing (fcntl(2)).
_LEASES: Final = hasattr(fcntl, "F_SETLEASE") and hasattr(fcntl, "F_SETSIG")
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_SIGNAL: Final = int(signal.SIGURG)


class Candidate(NamedTuple):
    """A path to examine, and what is known of it.

    Attributes:
        path: POSIX path below the root.
        known: the image as it was last published.
        hash_always: an event named this file, so it is hashed even if size and time are equal.
        seen: size and time at an earlier examination, which must not have changed since.
        quiet: seconds for which the file must not have been modified; 0 to skip this check.
        maybe_open: an event reported writing, and none has reported closing.
        patience_over: unchanged so long that it counts as complete although it may be open.
        mount: the mount point below which it is, if not the root's own.
    """

    path: str
    known: KnownImage | None
    hash_always: bool = False
    seen: FileStat | None = None
    quiet: float = 0.0
    maybe_open: bool = False
    patience_over: bool = False
    mount: str | None = None


class Gone(NamedTuple):
    """There is no file at this path."""

    path: str


class Present(NamedTuple):
    """A complete image: its content (SHA-256), size and time.

    `event` is the encoded event to publish. It is None if the image is known with this content, or
    if no event can hold its name. `media_type` is None if the first bytes do not show one.
    """

    path: str
    sha256: bytes
    stat: FileStat | ListedStat
    event: bytes | None = None
    media_type: str | None = None


class NotAnImage(NamedTuple):
    """Neither its name nor its first bytes are those of an image, or it is not a regular file.

    The file is examined again when `stat` changes.
    """

    path: str
    stat: Hashable
    reason: SkipReason = SkipReason.NOT_AN_IMAGE


class Unsettled(NamedTuple):
    """Still being written; to be examined again later."""

    path: str
    stat: FileStat


class Unreadable(NamedTuple):
    """It exists but cannot be read now. The image that was published before stays."""

    path: str
    reason: str


class TooLarge(NamedTuple):
    """It is larger than the limit; `stat` changes with its content."""

    path: str
    reason: str
    stat: Hashable = None


Finding = Gone | Present | NotAnImage | Unsettled | Unreadable | TooLarge


def skip_of(finding: Finding) -> Examined:
    """Whether the file is skipped, and why."""
    path = finding.path
    match finding:
        case Present() if is_utf8(path):
            return Examined(path, None)
        case Present():
            return Examined(path, SkipReason.NAME_NOT_UTF8)
        case NotAnImage():
            return Examined(path, finding.reason, finding.stat)
        case TooLarge():
            return Examined(path, SkipReason.TOO_LARGE, finding.stat)
        case Unreadable():
            return Examined(path, SkipReason.UNREADABLE)
        case _:
            return Examined(path, None)


class Examiner:
    """Examines files below one root.

    Args:
        root: the watched folder.
        event_factory: makes the events of new images.
        follow: whether symbolic links are followed.
        max_bytes: larger files are refused without reading them.
    """

    def __init__(
        self, root: Path, event_factory: EventFactory, *, follow: bool, max_bytes: int
    ) -> None:
        self._root = str(root)
        self._root_path = root
        self._event_factory = event_factory
        self._follow = follow
        self._max_bytes = max_bytes

    def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in the same order. Blocks: call it in a thread."""

        @lru_cache(maxsize=4096)
        def reachable(directory: str) -> bool:
            return rules.reaches(directory) and (
                self._follow or is_plain_directory(self._root_path, directory)
            )

        findings: list[Finding] = []
        for candidate in candidates:
            path = candidate.path
            try:
                directory, _, name = path.rpartition("/")
                reason = rules.judge(directory, name)
                if reason in TO_EXAMINE and reachable(directory):
                    findings.append(
                        self._examine_one(candidate, unsure=reason is SkipReason.UNSURE)
                    )
                else:
                    findings.append(Gone(path))
            except (FileNotFoundError, NotADirectoryError):
                findings.append(Gone(path))
            except OSError as error:
                findings.append(Unreadable(path, str(error)))
        # All events are made at the end: between the system calls of each file, making an event
        # takes twice as long, as the processor's caches are cold.
        return [self._with_event(*each) for each in zip(candidates, findings, strict=True)]

    def _examine_one(self, candidate: Candidate, *, unsure: bool) -> Finding:
        path, known = candidate.path, candidate.known
        absolute = f"{self._root}/{path}"
        status = os.stat(absolute, follow_symlinks=self._follow)  # noqa: PTH116 (no Path per file)
        if not stat.S_ISREG(status.st_mode):
            if stat.S_ISDIR(status.st_mode):
                return Gone(path)
            return NotAnImage(path, None, SkipReason.NOT_A_FILE)
        now = file_stat(status)
        if now.size > self._max_bytes and not unsure:
            return self._too_large(path, now)
        if not candidate.hash_always and known and known.sha256 and known.stat == now:
            return Present(path, known.sha256, now)
        if _too_fresh(candidate, now):
            return Unsettled(path, now)
        # If a named pipe or a link has replaced the file, do not wait for it or follow it.
        descriptor = os.open(absolute, _FLAGS if self._follow else _FLAGS | os.O_NOFOLLOW)
        try:
            if unsure:
                # If it is still being written, an event or a new size or time will follow.
                if sniff_media_type(os.pread(descriptor, HEAD_BYTES, 0)) is None:
                    return NotAnImage(path, now)
                if now.size > self._max_bytes:
                    return self._too_large(path, now)
            if _may_be_open(candidate, now) and _being_written(descriptor, candidate):
                return Unsettled(path, now)
            return _read(descriptor, path, now)
        finally:
            os.close(descriptor)

    def _too_large(self, path: str, now: FileStat) -> TooLarge:
        return TooLarge(path, f"{now.size} bytes are more than {self._max_bytes}", now)

    def _with_event(self, candidate: Candidate, finding: Finding) -> Finding:
        if not isinstance(finding, Present) or not is_utf8(finding.path):
            return finding
        known = candidate.known
        if (
            known is not None
            and known.sha256 == finding.sha256
            and known.uri_is_current
            and known.mount == candidate.mount
        ):
            return finding
        path, sha256, stat, _, media_type = finding
        event = self._event_factory.addition(path, sha256, stat, candidate.mount, media_type)
        return Present(path, sha256, stat, event, media_type)


def _read(descriptor: int, path: str, now: FileStat) -> Finding:
    content = ContentHash()
    # One byte more than expected shows that the file grew; the comparison below notices it too.
    while content.size <= now.size and (
        chunk := os.read(descriptor, min(CHUNK_BYTES, now.size + 1 - content.size))
    ):
        content.update(chunk)
    after = file_stat(os.fstat(descriptor))
    if after != now:
        return Unsettled(path, after)
    return Present(path, content.sha256(), now, None, content.media_type(path))


def _too_fresh(candidate: Candidate, now: FileStat) -> bool:
    if candidate.seen is not None and candidate.seen != now:
        return True
    # A time in the future does not count; only the comparison above delays such a file.
    return 0 <= time.time() - now.modified_us / 1e6 < candidate.quiet


def _may_be_open(candidate: Candidate, now: FileStat) -> bool:
    if candidate.patience_over:
        return False
    return candidate.hash_always or time.time() - now.modified_us / 1e6 < STALLED_SECONDS


def _being_written(descriptor: int, candidate: Candidate) -> bool:
    """Whether another process has the file open for writing, as far as that can be known."""
    if _LEASES:
        try:
            # If a writer opens the file at this moment, the kernel signals the holder of the lease.
            # SIGURG is ignored by default.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, _SIGNAL)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        except OSError:
            # Another user's file, or a file system without leases: rely on events.
            return candidate.maybe_open
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    return candidate.maybe_open
