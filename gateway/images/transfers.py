"""Reading objects of buckets in pieces, a bounded number of objects and of calls at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Final, TypeVar

from gateway.errors import ImageNotFound, ImageTooLarge
from imaging.sources.storage import file_system, open_pieces, storage_errors

T = TypeVar("T")

PIECE_BYTES: Final = 256 * 1024
"""How much of an object is held in memory while it is sent."""
THREADS: Final = 8
"""Calls to buckets in flight at once; each blocks a thread."""
MAX_TRANSFERS = 64
"""Objects that are sent at once; further ones wait for a slot, within the request's deadline."""


class Transfers:
    """The threads and slots that all requests for objects of buckets share."""

    def __init__(self, *, max_bytes: int) -> None:
        """An object of more than `max_bytes` is refused."""
        self._max_bytes = max_bytes
        self.slots = asyncio.Semaphore(MAX_TRANSFERS)
        # A bucket that hangs blocks its threads, so nothing else may use them.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bucket")

    async def in_thread(self, call: Callable[[], T]) -> T:
        """The result of a blocking call, made in one of the threads."""
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Like `in_thread`, for a call whose result need not be awaited."""
        return self._threads.submit(call)

    def facts(self, uri: str) -> tuple[int | None, str]:
        """Size in bytes of an object, and a text that changes with its content. Blocks.

        Raises:
            ImageNotFound: there is no such object.
            ImageTooLarge: it has more than `max_bytes`.
            Unavailable: the bucket cannot be reached now.
        """
        system, path = file_system(uri)
        try:
            with storage_errors(uri):
                info = system.info(path)
        except FileNotFoundError as error:
            raise ImageNotFound from error
        if info.get("type") != "file":
            raise ImageNotFound
        size = info.get("size")
        if size is not None and size > self._max_bytes:
            raise ImageTooLarge
        known = [str(info.get(key)) for key in ("ETag", "LastModified", "mtime", "size")]
        return size, "\0".join([uri, *known])


class ObjectReader:
    """Reads one object of a bucket in the transfers' threads, one piece after another.

    Raises while reading:
        ImageNotFound: there is no such object.
        Unavailable: the bucket cannot be reached now.
    """

    def __init__(self, transfers: Transfers, uri: str) -> None:
        self._transfers = transfers
        self._uri = uri
        self._file: BinaryIO | None = None
        self._last: Future[Any] | None = None

    async def read(self) -> bytes:
        """The next piece, of at most `PIECE_BYTES`; empty at the end."""
        self._last = reading = self._transfers.submit(self._read)
        return await asyncio.wrap_future(reading)

    async def from_start(self, piece: bytes) -> AsyncIterator[bytes]:
        """`piece`, which was read already, and all pieces that follow."""
        while piece:
            yield piece
            piece = await self.read()

    def close(self) -> None:
        """Close the object after a read that may still be in flight; does not wait for it."""
        if self._last is not None:
            self._last.add_done_callback(lambda _: self._transfers.submit(self._close))

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = open_pieces(self._uri, PIECE_BYTES)
            except FileNotFoundError as error:
                raise ImageNotFound from error
        with storage_errors(self._uri):
            return self._file.read(PIECE_BYTES)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
