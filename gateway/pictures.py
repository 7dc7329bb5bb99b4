"""Serving the indexed pictures, and nothing else of the file system."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

from starlette.responses import FileResponse, Response, StreamingResponse

from adapters.media_types import sniff_media_type
from adapters.settings import SourceSettings
from adapters.storage import file_system, open_uri, reaching, read_bytes
from gateway.filters import valid_unicode
from gateway.problems import Problem
from gateway.waiting import Presence

PIECE_BYTES: Final = 256 * 1024
"""What is held in memory of a bucket's object while it is sent."""

HEADERS = {
    "Cache-Control": "private, max-age=60",
    "X-Content-Type-Options": "nosniff",
    # A picture opened on its own is data, whatever a browser might make of it.
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def find(root: Path, name: str) -> tuple[Path, str]:
    """The file of an image id below `root`, and its media type by content.

    Raises:
        Problem: 404 for whatever is not a picture inside the root, links out of it included.
    """
    absent = missing()
    if "\0" in name:
        raise absent
    try:
        base = root.resolve(strict=True)
        path = (base / name).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise absent
        with path.open("rb") as file:
            media_type = sniff_media_type(file.read(64))
    except (OSError, ValueError, RuntimeError) as error:
        raise absent from error
    if media_type is None:
        raise absent
    return path, media_type


@dataclass(frozen=True, slots=True)
class Found:
    """A picture: what tells this content of it from another, and how to have its bytes.

    `path` is that of one on this machine, whose bytes need not come here.
    """

    identity: str
    read: Callable[[], bytes]
    path: Path | None = None


class Served:
    """Which names are answered at all: what is indexed, or is held in an open dead letter.

    A folder holds more than pictures that somebody wanted shown: hidden and ignored files, drafts,
    what a rule excludes. None of it is in the index.
    """

    def __init__(self, presence: Presence, failed: Callable[[], Awaitable[Container[str]]]) -> None:
        """`failed` tells the ids of the pictures with an open dead letter."""
        self._presence = presence
        self._failed = failed

    async def check(self, name: str) -> None:
        """Return if this picture may be shown.

        Raises:
            Problem: 404 if it may not.
            Unavailable: index or log do not answer.
        """
        try:
            valid_unicode(name)
        except ValueError as error:
            raise missing() from error
        if await self._presence.hash_of(name) is None and name not in await self._failed():
            raise missing()


class Pictures:
    """The pictures of the main folder and of every other source."""

    def __init__(self, settings: SourceSettings, served: Served, *, max_bytes: int) -> None:
        """An object of a bucket with more than `max_bytes` is not sent."""
        self._main = settings.images_dir
        self._sources = settings.images_sources
        self._served = served
        self._max_bytes = max_bytes

    async def response(self, name: str) -> Response:
        """The picture of an image id with its ETag.

        Raises:
            Problem: 404 for whatever is no picture that is indexed, 413 for one that is too large.
            Unavailable: the bucket, the index or the log cannot be reached now.
        """
        await self._served.check(name)
        place = self._place(name)
        if isinstance(place, str):
            return await asyncio.to_thread(self._from_bucket, place)
        path, media_type = await asyncio.to_thread(find, *place)
        return FileResponse(path, media_type=media_type, headers=HEADERS, stat_result=path.stat())

    async def find(self, name: str) -> Found:
        """The picture of an image id, unread; raises as `response`."""
        await self._served.check(name)
        return await asyncio.to_thread(self._find, name)

    def _from_bucket(self, uri: str) -> Response:
        """The object, passed on piece by piece as the client takes it. Blocks."""
        _, facts = self._object(uri)
        file = _opened(uri)
        try:
            with reaching(uri):
                start = file.read(PIECE_BYTES)
            media_type = sniff_media_type(start[:64])
            if media_type is None:
                raise missing()
        except BaseException:
            file.close()
            raise
        headers = {**HEADERS, "ETag": f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'}
        return StreamingResponse(_pieces(uri, start, file), media_type=media_type, headers=headers)

    def _object(self, uri: str) -> tuple[int | None, str]:
        """Size of a bucket's object, and what tells its content from another."""
        system, path = file_system(uri)
        try:
            with reaching(uri):
                info = system.info(path)
        except FileNotFoundError as error:
            raise missing() from error
        if info.get("type") != "file":
            raise missing()
        size = info.get("size")
        if size is not None and size > self._max_bytes:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The picture is too large.")
        facts = [str(info.get(key)) for key in ("ETag", "LastModified", "mtime", "size")]
        return size, "\0".join([uri, *facts])

    def _find(self, name: str) -> Found:
        place = self._place(name)
        if isinstance(place, str):
            return Found(self._object(place)[1], lambda: self._read(place))
        local, _ = find(*place)
        status = local.stat()
        # A picture that changes has another time.
        return Found(
            f"{local}\0{status.st_mtime_ns}\0{status.st_size}",
            lambda: self._read(local.as_uri()),
            local,
        )

    def _place(self, name: str) -> str | tuple[Path, str]:
        """A bucket's URI, or a folder and the path below it."""
        source = next((each for each in self._sources if name.startswith(each.prefix)), None)
        if source is None:
            return self._main, name
        path = name.removeprefix(source.prefix)
        if source.is_local:
            return source.folder, path
        if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise missing()
        return source.uri(path)

    def _read(self, uri: str) -> bytes:
        try:
            data = read_bytes(uri, self._max_bytes + 1)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise missing() from error
        if len(data) > self._max_bytes:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The picture is too large.")
        return data


def _opened(uri: str) -> BinaryIO:
    try:
        return open_uri(uri)
    except FileNotFoundError as error:
        raise missing() from error


def _pieces(uri: str, start: bytes, file: BinaryIO) -> Iterator[bytes]:
    """`start` and what follows it in the file, which is closed however this ends."""
    with file:
        piece = start
        while piece:
            yield piece
            with reaching(uri):
                piece = file.read(PIECE_BYTES)


def missing() -> Problem:
    """What is told of a picture that is not there, or not to be shown."""
    return Problem(HTTPStatus.NOT_FOUND, "There is no such picture.")
