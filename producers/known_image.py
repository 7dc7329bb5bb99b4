"""An image as it was last published, and the size and time that a source is compared with."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

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
