"""Reads the bytes of images by URI, from local disks and from buckets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit

import fsspec

from adapters.errors import Rejected, Unavailable

_DISK_IS_AWAY: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ENXIO,
        errno.ESHUTDOWN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Errors of a mounted file system whose server or device is gone."""
_NAMES: Final = (
    *("EIO", "EREMOTEIO", "ENOLINK", "ENODATA", "EUCLEAN", "EBADMSG"),
    *("ENODEV", "ENXIO", "ESTALE", "ETIMEDOUT"),
)
_DISK_OR_FILE: Final = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
"""Errors of a bad sector, and also of a disk or server that is gone (soft NFS mounts and unplugged
disks return EIO). One file alone does not show which. Some exist on Linux only."""


def may_concern_one_file(error: BaseException | None) -> bool:
    """Whether a disk's error may concern one file only; its folder has to be checked."""
    return isinstance(error, OSError) and error.errno in _DISK_OR_FILE


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Options come from fsspec's settings.

    The path is unquoted, as for `file:` URLs, so any name fits into a URL.

    Raises:
        Rejected: URLs of this scheme are not supported.
    """
    parts = urlsplit(url)
    try:
        # Not `fsspec.open`, which interprets `*` and `::` in a name.
        system = fsspec.filesystem(parts.scheme)
    except (ValueError, ImportError) as error:
        raise Rejected(f"{url}: {error}") from error
    # The parts that urlsplit takes as query or fragment belong to the name here.
    path = url.partition("://")[2]
    return system, unquote(path) if parts.scheme != "file" else unquote(parts.path)


def open_uri(uri: str) -> BinaryIO:
    """Open the image for reading. Blocks.

    Raises:
        FileNotFoundError: there is no such file or object.
        Rejected: URLs of this scheme are not supported.
        Unavailable: its storage cannot be reached now.
        OSError: a local file cannot be opened.
    """
    if uri.startswith("file://"):
        with disk_errors(uri):
            return Path(unquote(urlsplit(uri).path)).open("rb")
    system, path = file_system(uri)
    with storage_errors(uri):
        return cast(BinaryIO, system.open(path, "rb"))


def open_pieces(uri: str, piece_bytes: int) -> BinaryIO:
    """Open an object of a bucket for reading in pieces of `piece_bytes`, without read-ahead.

    By default the clients of buckets read and keep up to 50 MB ahead. Blocks; raises as `open_uri`.
    """
    system, path = file_system(uri)
    with storage_errors(uri):
        opened = system.open(path, "rb", block_size=piece_bytes, cache_type="none")
        return cast(BinaryIO, opened)


def first_bytes(uri: str, count: int) -> bytes:
    """The first `count` bytes of an object of a bucket; no more of it is fetched.

    Blocks; raises as `open_uri`.
    """
    system, path = file_system(uri)
    with storage_errors(uri):
        return cast(bytes, system.cat_file(path, start=0, end=count))


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Within the block, errors of a disk that is gone become `Unavailable`.

    A path below something that is not a folder becomes `FileNotFoundError`.
    """
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, what) from error
    except OSError as error:
        if error.errno in _DISK_IS_AWAY:
            raise Unavailable(f"{what}: {error.strerror or error}") from error
        raise


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Within the block, any error but `FileNotFoundError` becomes `Unavailable`.

    Each storage library has its own errors, not all of them OSErrors, and naming them would mean
    importing the libraries.
    """
    try:
        yield
    except (FileNotFoundError, Unavailable):
        raise
    except Exception as error:
        raise Unavailable(f"{what}: {str(error) or type(error).__name__}") from error


def read_bytes(uri: str, limit: int) -> bytes:
    """The image's bytes, at most `limit` of them. Blocks; raises as `open_uri`."""
    with open_uri(uri) as file:
        if uri.startswith("file://"):
            with disk_errors(uri):
                return file.read(limit)
        with storage_errors(uri):
            return file.read(limit)
