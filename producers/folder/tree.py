"""Reads a folder from disk: names, sizes and times, one directory at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from producers.rules import TO_EXAMINE, Rules
from producers.skipped import SkipReason

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_LATEST: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND


class FileStat(NamedTuple):
    """Size in bytes, and modification time in whole microseconds since 1970 (UTC)."""

    size: int
    modified_us: int


class ListedStat(NamedTuple):
    """As `FileStat`, for a listed object. The time is None if the listing has none."""

    size: int
    modified_us: int | None


class KnownImage(NamedTuple):
    """An image as it was last published.

    `sha256` and `stat` are None for a record that could not be read: its key exists, its content
    is unknown. `mount` is the path of its mount point, None for the root's file system.
    """

    sha256: bytes | None
    stat: FileStat | ListedStat | None
    uri_is_current: bool = True
    mount: str | None = None


UNKNOWN: Final = KnownImage(None, None, uri_is_current=False)
"""An image whose record could not be read; it is published again if it exists."""


def file_stat(status: os.stat_result) -> FileStat:
    """Size and time of a file. Times are cut to microseconds, as in events."""
    modified_us = status.st_mtime_ns // 1000
    if not _EARLIEST <= modified_us <= _LATEST:
        modified_us = min(max(modified_us, _EARLIEST), _LATEST)
    return FileStat(status.st_size, modified_us)


def to_datetime(modified_us: int) -> datetime:
    """Microseconds since 1970 as UTC time, exactly."""
    return EPOCH + timedelta(microseconds=modified_us)


def to_microseconds(moment: datetime) -> int:
    """The inverse of `to_datetime`, exactly."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class RootGone(Exception):
    """The watched folder is missing or cannot be read, so nothing is known about its images."""


@dataclass(slots=True)
class DirectoryListing:
    """One directory as listed. Names are those of the file system, `directory` is a POSIX path.

    Attributes:
        files: name -> size and time, of images and of files that may be images.
        unsure: names in `files` that do not show whether they are images.
        skipped: reason -> names that are skipped; those of folders end with a slash.
        directories: names of subfolders to scan.
        undecodable: names of images whose paths are not UTF-8 (with surrogate escapes).
        failed: why the directory could not be read; an absent name is then no removal.
        missing: the directory does not exist.
        real: its absolute path, if followed links lead there; else None.
    """

    directory: str
    files: dict[str, FileStat] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    skipped: dict[SkipReason, list[str]] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    failed: str | None = None
    missing: bool = False
    real: str | None = None


def join(directory: str, name: str) -> str:
    """Path below the root of a name in a directory; "" is the root."""
    return f"{directory}/{name}" if directory else name


def list_directory(root: Path, directory: str, rules: Rules, *, follow: bool) -> DirectoryListing:
    """List one directory. Failures are part of the result."""
    listing = DirectoryListing(directory)
    path = f"{root}/{directory}" if directory else str(root)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                _classify(listing, entry, rules, follow=follow)
    except (FileNotFoundError, NotADirectoryError):
        listing.missing = True
    except OSError as error:
        listing.failed = str(error)
    return listing


def _classify(
    listing: DirectoryListing, entry: os.DirEntry[str], rules: Rules, *, follow: bool
) -> None:
    name = entry.name
    try:
        if entry.is_dir(follow_symlinks=follow):
            if rules.enters(join(listing.directory, name)):
                listing.directories.append(name)
            else:
                listing.skipped.setdefault(SkipReason.IGNORED, []).append(f"{name}/")
            return
        reason = rules.judge(listing.directory, name)
        if reason not in TO_EXAMINE:
            listing.skipped.setdefault(reason, []).append(name)
            return
        status = entry.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return
        raise
    if not stat.S_ISREG(status.st_mode):
        listing.skipped.setdefault(SkipReason.NOT_A_FILE, []).append(name)
        return
    if reason is SkipReason.UNSURE:
        listing.unsure.add(name)
    if is_utf8(name) and is_utf8(listing.directory):
        listing.files[name] = file_stat(status)
    else:
        listing.undecodable.append(name)


def is_utf8(path: str) -> bool:
    """Whether the path's bytes are UTF-8. Python represents other bytes as lone surrogates."""
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)


def scan_tree(root: Path, top: str, rules: Rules, *, follow: bool) -> Iterator[DirectoryListing]:
    """`top` and every directory below it, parents first.

    A symbolic link to a directory above itself is not entered.

    Raises:
        RootGone: `top` is the root, and it is missing or unreadable.
    """
    if top and (absent := _unreachable(root, top, rules, follow=follow)) is not None:
        yield absent
        return
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(top, ())]
    while pending:
        directory, ancestors = pending.pop()
        if follow:
            identity = _identity(root / directory)
            if identity is None or identity in ancestors:
                if not directory:
                    raise RootGone(f"{root} does not exist")
                yield DirectoryListing(directory, missing=True)
                continue
            ancestors = (*ancestors, identity)
        listing = list_directory(root, directory, rules, follow=follow)
        if not directory and (listing.missing or listing.failed):
            raise RootGone(f"{root} {listing.failed or 'does not exist'}")
        if follow:
            listing.real = _elsewhere(root, directory)
        yield listing
        pending.extend((join(directory, name), ancestors) for name in listing.directories)


def _elsewhere(root: Path, directory: str) -> str | None:
    path = f"{root}/{directory}" if directory else str(root)
    real = os.path.realpath(path)
    return real if real != path else None


def _unreachable(root: Path, top: str, rules: Rules, *, follow: bool) -> DirectoryListing | None:
    """The empty listing of a folder that a scan from the root would not reach; else None."""
    try:
        if rules.reaches(top) and (follow or is_plain_directory(root, top)):
            return None
    except OSError as error:
        return DirectoryListing(top, failed=str(error))
    return DirectoryListing(top, missing=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_plain_directory(root: Path, directory: str) -> bool:
    """Whether each part of the path below the root is a real directory, not a link to one.

    Raises:
        OSError: a part cannot be checked, so it may or may not exist.
    """
    path = str(root)
    for part in directory.split("/") if directory else ():
        path = f"{path}/{part}"
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
