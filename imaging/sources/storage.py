"""Pictures' bytes from wherever their URI says they are."""

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
"""What a mounted file system says when its server or its device is gone, whatever file is meant."""
_NAMES: Final = (
    *("EIO", "EREMOTEIO", "ENOLINK", "ENODATA", "EUCLEAN", "EBADMSG"),
    *("ENODEV", "ENXIO", "ESTALE", "ETIMEDOUT"),
)
_DISK_OR_FILE: Final = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
"""What a disk says of a bad sector, and also when it, or its server, is gone: soft NFS mounts and
unplugged disks say EIO. The file alone does not tell which. Some are known to Linux only."""


def may_be_the_file_s(error: BaseException | None) -> bool:
    """Whether what went wrong on a disk may concern one file only: its place tells."""
    return isinstance(error, OSError) and error.errno in _DISK_OR_FILE


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there. Options come from fsspec's settings.

    The part after the host is unquoted, as for `file:`: any name fits into a URL.

    Raises:
        Rejected: nothing here can read URLs of this scheme.
    """
    parts = urlsplit(url)
    try:
        # Not `fsspec.open`, to which `*` and `::` in a name would mean something.
        system = fsspec.filesystem(parts.scheme)
    except (ValueError, ImportError) as error:
        raise Rejected(f"{url}: {error}") from error
    # Whatever urlsplit takes for a query or a fragment is part of a name here.
    path = url.partition("://")[2]
    return system, unquote(path) if parts.scheme != "file" else unquote(parts.path)


def open_uri(uri: str) -> BinaryIO:
    """The picture, opened for reading. Blocks.

    Raises:
        FileNotFoundError: there is no such file or object.
        Rejected: the URI cannot be understood.
        Unavailable: its storage cannot be reached now.
        OSError: a local file cannot be opened.
    """
    if uri.startswith("file://"):
        with on_disk(uri):
            return Path(unquote(urlsplit(uri).path)).open("rb")
    system, path = file_system(uri)
    with reaching(uri):
        return cast(BinaryIO, system.open(path, "rb"))


def open_pieces(uri: str, piece_bytes: int) -> BinaryIO:
    """An object of a bucket for reading pieces of up to `piece_bytes`, of which no more is fetched.

    By default the clients of buckets read up to 50 MB ahead, and keep them. Blocks; raises as
    `open_uri`.
    """
    system, path = file_system(uri)
    with reaching(uri):
        opened = system.open(path, "rb", block_size=piece_bytes, cache_type="none")
        return cast(BinaryIO, opened)


def first_bytes(uri: str, count: int) -> bytes:
    """At most so many first bytes of an object of a bucket, and no more of it is fetched.

    Blocks; raises as `open_uri`.
    """
    system, path = file_system(uri)
    with reaching(uri):
        return cast(bytes, system.cat_file(path, start=0, end=count))


@contextmanager
def on_disk(what: str) -> Iterator[None]:
    """Tells a disk that is away from a file that is: the former is `Unavailable`.

    A file below something that is no folder (any more) is not there, as well.
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
def reaching(what: str) -> Iterator[None]:
    """Turns whatever a storage library raises into `Unavailable`, but for a file not being there.

    Each library has errors of its own, not all of them OSErrors; none can be named here without
    importing it.
    """
    try:
        yield
    except (FileNotFoundError, Unavailable):
        raise
    except Exception as error:
        raise Unavailable(f"{what}: {str(error) or type(error).__name__}") from error


def read_bytes(uri: str, limit: int) -> bytes:
    """The picture's bytes, at most `limit` of them. Blocks; raises as `open_uri`."""
    with open_uri(uri) as file:
        if uri.startswith("file://"):
            with on_disk(uri):
                return file.read(limit)
        with reaching(uri):
            return file.read(limit)
