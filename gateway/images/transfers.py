"""Objects of buckets on their way to clients: piece by piece, and a bounded number at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, BinaryIO, Final, TypeVar

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.problems import Problem
from imaging.media_types import HEAD_BYTES, content_type
from imaging.sources.storage import file_system, open_pieces, reaching

T = TypeVar("T")

PIECE_BYTES: Final = 256 * 1024
"""What is held in memory of an object while it is sent."""
THREADS: Final = 8
"""Calls to buckets that are under way at once; each blocks a thread."""
AT_ONCE = 64
"""Objects that are sent at once; further ones wait for their turn, within the deadline."""


class Transfers:
    """What all requests for objects of buckets share."""

    def __init__(self, *, max_bytes: int, headers: dict[str, str]) -> None:
        """An object with more than `max_bytes` is not sent; `headers` go with each."""
        self.max_bytes = max_bytes
        self.headers = headers
        self.slots = asyncio.Semaphore(AT_ONCE)
        # A bucket that hangs keeps its threads: these are no one else's.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bucket")

    async def run(self, call: Callable[[], T]) -> T:
        """The result of a call that blocks."""
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """The same for one whose end matters though nobody awaits it any more."""
        return self._threads.submit(call)

    def facts(self, uri: str) -> tuple[int | None, str]:
        """Size of an object, and what tells its content from another. Blocks.

        Raises:
            Problem: 404 if there is no such object, 413 if it is too large.
            Unavailable: the bucket cannot be reached now.
        """
        system, path = file_system(uri)
        try:
            with reaching(uri):
                info = system.info(path)
        except FileNotFoundError as error:
            raise missing() from error
        if info.get("type") != "file":
            raise missing()
        size = info.get("size")
        if size is not None and size > self.max_bytes:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The picture is too large.")
        known = [str(info.get(key)) for key in ("ETag", "LastModified", "mtime", "size")]
        return size, "\0".join([uri, *known])


class BucketResponse(Response):
    """Sends an object of a bucket; opened when it is sent, and closed however that ends.

    Raises when sent:
        Problem, Unavailable: as `Transfers.facts`; also 404 for what is no picture.
    """

    def __init__(self, transfers: Transfers, uri: str) -> None:
        super().__init__()
        self._transfers = transfers
        self._uri = uri

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self._transfers.slots:
            size, facts = await self._transfers.run(lambda: self._transfers.facts(self._uri))
            opened = _Opened(self._transfers, self._uri)
            try:
                start = await opened.read()
                media_type = content_type(start[:HEAD_BYTES], self._uri)
                if media_type is None:
                    raise missing()
                tag = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
                headers = {**self._transfers.headers, "ETag": f'"{tag}"'}
                if size is not None:
                    headers["Content-Length"] = str(size)
                pieces = opened.from_start(start)
                sending = StreamingResponse(pieces, media_type=media_type, headers=headers)
                await sending(scope, receive, send)
            finally:
                opened.close()


class _Opened:
    """An object that is read in threads, one piece after another."""

    def __init__(self, transfers: Transfers, uri: str) -> None:
        self._transfers = transfers
        self._uri = uri
        self._file: BinaryIO | None = None
        self._last: Future[Any] | None = None

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        self._last = reading = self._transfers.submit(self._read)
        return await asyncio.wrap_future(reading)

    async def from_start(self, piece: bytes) -> AsyncIterator[bytes]:
        """`piece`, which was read already, and all that follow."""
        while piece:
            yield piece
            piece = await self.read()

    def close(self) -> None:
        """Close it once the read that may be under way has ended; does not wait for that."""
        if self._last is not None:
            self._last.add_done_callback(lambda _: self._transfers.submit(self._close))

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = open_pieces(self._uri, PIECE_BYTES)
            except FileNotFoundError as error:
                raise missing() from error
        with reaching(self._uri):
            return self._file.read(PIECE_BYTES)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


def missing() -> Problem:
    """404."""
    return Problem(HTTPStatus.NOT_FOUND, "There is no such picture.")
