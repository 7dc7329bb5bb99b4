"""One look at a file: is it there, is it complete, and what does it hold? Runs in threads."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import time
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from adapters.media_types import HEAD_BYTES, content_type, sniff_media_type
from producers.announce import Announcer
from producers.passed import Look, Reason
from producers.rules import LOOKED_AT, Rules
from producers.tree import FileStat, Known, ListedStat, file_stat, is_plain_directory, is_utf8

CHUNK_BYTES: Final = 1024 * 1024

STALLED_SECONDS: Final = 600.0
"""A writer that wrote nothing for so long is not looked for in a scan; its end raises an event."""

# The kernel grants a read lease only on a file that nobody has open for writing (fcntl(2)).
_LEASES: Final = hasattr(fcntl, "F_SETLEASE") and hasattr(fcntl, "F_SETSIG")
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_SIGNAL: Final = int(signal.SIGURG)


class Candidate(NamedTuple):
    """A path to look at, and what is known of it.

    Attributes:
        image_id: POSIX path below the root.
        known: what was published last.
        hash_always: an event spoke of this file, so equal size and time prove nothing.
        seen: size and time at an earlier look, which must not have changed since.
        quiet: seconds for which the file must not have been modified; 0 for no such demand.
        maybe_open: an event told of writing, and none of closing.
        patience_over: it was unchanged for so long that it counts as complete even if still open.
        mount: the mount point below which it lies, if not the root's own.
    """

    image_id: str
    known: Known | None
    hash_always: bool = False
    seen: FileStat | None = None
    quiet: float = 0.0
    maybe_open: bool = False
    patience_over: bool = False
    mount: str | None = None


class Gone(NamedTuple):
    """There is no picture of this id."""

    image_id: str


class Present(NamedTuple):
    """The complete picture: its content (SHA-256), size and time.

    `event` is what is to be published of it, encoded; None if it is known with this content, or if
    its name is none that an event can hold. `media_type` is None if its first bytes tell none.
    """

    image_id: str
    sha256: bytes
    stat: FileStat | ListedStat
    event: bytes | None = None
    media_type: str | None = None


class NoPicture(NamedTuple):
    """Its name does not tell what it is, and its first bytes are those of no picture.

    Or it is no regular file. `stat` tells whether that has to be found out again.
    """

    image_id: str
    stat: Hashable
    reason: Reason = Reason.NOT_A_PICTURE


class Unsettled(NamedTuple):
    """Still being written: look again later."""

    image_id: str
    stat: FileStat


class Unreadable(NamedTuple):
    """It is there and cannot be read now; nothing follows for what was published before."""

    image_id: str
    reason: str


class TooLarge(NamedTuple):
    """It is over the limit on size; `stat` differs where it is another content."""

    image_id: str
    reason: str
    stat: Hashable = None


Finding = Gone | Present | NoPicture | Unsettled | Unreadable | TooLarge


def look_of(finding: Finding) -> Look:
    """What is to be remembered of a finding, as of what is passed over."""
    path = finding.image_id
    match finding:
        case Present() if is_utf8(path):
            return Look(path, None)
        case Present():
            return Look(path, Reason.NAME_NOT_UTF8)
        case NoPicture():
            return Look(path, finding.reason, finding.stat)
        case TooLarge():
            return Look(path, Reason.TOO_LARGE, finding.stat)
        case Unreadable():
            return Look(path, Reason.UNREADABLE)
        case _:
            return Look(path, None)


class Examiner:
    """Looks at files below one root.

    Args:
        root: the watched folder.
        announcer: makes the events of what is new.
        follow: whether symbolic links are followed.
        max_bytes: files larger than this are refused, unread.
    """

    def __init__(self, root: Path, announcer: Announcer, *, follow: bool, max_bytes: int) -> None:
        self._root = str(root)
        self._path = root
        self._announcer = announcer
        self._follow = follow
        self._max_bytes = max_bytes

    def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        """One finding per candidate, in their order. Blocks: call it in a thread."""

        @lru_cache(maxsize=4096)
        def reachable(directory: str) -> bool:
            return rules.reaches(directory) and (
                self._follow or is_plain_directory(self._path, directory)
            )

        findings: list[Finding] = []
        for candidate in candidates:
            image_id = candidate.image_id
            try:
                directory, _, name = image_id.rpartition("/")
                reason = rules.judge(directory, name)
                if reason in LOOKED_AT and reachable(directory):
                    findings.append(self._look(candidate, unsure=reason is Reason.UNSURE))
                else:
                    findings.append(Gone(image_id))
            except (FileNotFoundError, NotADirectoryError):
                findings.append(Gone(image_id))
            except OSError as error:
                findings.append(Unreadable(image_id, str(error)))
        # Not one by one in between: after each file's system calls the processor has forgotten the
        # code that makes events, which then takes twice as long.
        return [self._announced(*each) for each in zip(candidates, findings, strict=True)]

    def _look(self, candidate: Candidate, *, unsure: bool) -> Finding:
        image_id, known = candidate.image_id, candidate.known
        path = f"{self._root}/{image_id}"
        status = os.stat(path, follow_symlinks=self._follow)  # noqa: PTH116 (no Path per file)
        if not stat.S_ISREG(status.st_mode):
            if stat.S_ISDIR(status.st_mode):
                return Gone(image_id)
            return NoPicture(image_id, None, Reason.NOT_A_FILE)
        now = file_stat(status)
        if now.size > self._max_bytes and not unsure:
            return self._too_large(image_id, now)
        if not candidate.hash_always and known and known.sha256 and known.stat == now:
            return Present(image_id, known.sha256, now)
        if _too_fresh(candidate, now):
            return Unsettled(image_id, now)
        # Never waits for a named pipe that took the file's place, never follows a link that did.
        descriptor = os.open(path, _FLAGS if self._follow else _FLAGS | os.O_NOFOLLOW)
        try:
            if unsure:
                # Whoever is still writing it raises an event, or changes its size or time.
                if sniff_media_type(os.pread(descriptor, HEAD_BYTES, 0)) is None:
                    return NoPicture(image_id, now)
                if now.size > self._max_bytes:
                    return self._too_large(image_id, now)
            if _may_be_open(candidate, now) and _being_written(descriptor, candidate):
                return Unsettled(image_id, now)
            return _read(descriptor, image_id, now)
        finally:
            os.close(descriptor)

    def _too_large(self, image_id: str, now: FileStat) -> TooLarge:
        return TooLarge(image_id, f"{now.size} bytes are more than {self._max_bytes}", now)

    def _announced(self, candidate: Candidate, finding: Finding) -> Finding:
        if not isinstance(finding, Present) or not is_utf8(finding.image_id):
            return finding
        known = candidate.known
        if (
            known is not None
            and known.sha256 == finding.sha256
            and known.uri_is_current
            and known.mount == candidate.mount
        ):
            return finding
        image_id, sha256, stat, _, media_type = finding
        event = self._announcer.addition(image_id, sha256, stat, candidate.mount, media_type)
        return Present(image_id, sha256, stat, event, media_type)


def _read(descriptor: int, image_id: str, now: FileStat) -> Finding:
    digest = hashlib.sha256()
    left, head = now.size, b""
    while left >= 0 and (chunk := os.read(descriptor, min(CHUNK_BYTES, left + 1))):
        head = head or chunk[:HEAD_BYTES]
        digest.update(chunk)
        left -= len(chunk)  # below zero if it grew, which the comparison shows
    after = file_stat(os.fstat(descriptor))
    if after != now:
        return Unsettled(image_id, after)
    return Present(image_id, digest.digest(), now, None, content_type(head, image_id))


def _too_fresh(candidate: Candidate, now: FileStat) -> bool:
    if candidate.seen is not None and candidate.seen != now:
        return True
    # A time in the future tells nothing, so only the comparison above holds such a file back.
    return 0 <= time.time() - now.modified_us / 1e6 < candidate.quiet


def _may_be_open(candidate: Candidate, now: FileStat) -> bool:
    if candidate.patience_over:
        return False
    return candidate.hash_always or time.time() - now.modified_us / 1e6 < STALLED_SECONDS


def _being_written(descriptor: int, candidate: Candidate) -> bool:
    """Whether another process has the file open for writing, as far as can be known."""
    if _LEASES:
        try:
            # A writer that opens the file at this very moment makes the kernel signal the holder
            # of the lease: let it be a signal whose default is to be ignored.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, _SIGNAL)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        except OSError:
            # Another user's file, or a file system without leases: go by the events.
            return candidate.maybe_open
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    return candidate.maybe_open
