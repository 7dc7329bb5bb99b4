"""Reads a folder from disk: names, sizes and times, one directory at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from producers.known_image import FileStat, file_stat
from producers.paths import is_utf8, join
from producers.rules import TO_EXAMINE, Rules
from producers.skipped import SkipReason


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
