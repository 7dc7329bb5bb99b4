"""Serving the indexed pictures, and nothing else of the file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.responses import FileResponse, Response

from adapters.name_forms import forms
from gateway.http.problems import Problem
from gateway.images.transfers import BucketResponse, Transfers, missing
from gateway.search.filters import valid_unicode
from gateway.search.waiting import Presence
from imaging.media_types import HEAD_BYTES, content_type
from imaging.sources.settings import SourceSettings
from imaging.sources.storage import read_bytes

HEADERS = {
    "Cache-Control": "private, max-age=60",
    "X-Content-Type-Options": "nosniff",
    # A picture opened on its own is data, whatever a browser might make of it.
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@dataclass(frozen=True, slots=True)
class LocalPicture:
    """A file that is a picture."""

    path: Path
    media_type: str
    status: os.stat_result


def find(root: Path, name: str) -> LocalPicture:
    """The file of an image id below `root`, with its media type by content.

    Raises:
        Problem: 404 for whatever is not a picture inside the root, links out of it included.
    """
    try:
        base = root.resolve(strict=True)
        path = (base / name).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise missing()
        with path.open("rb") as file:
            media_type = content_type(file.read(HEAD_BYTES), name)
            status = os.fstat(file.fileno())
    # ValueError: a name with a null character. RuntimeError: links in a circle.
    except (OSError, ValueError, RuntimeError) as error:
        raise missing() from error
    if media_type is None:
        raise missing()
    return LocalPicture(path, media_type, status)


@dataclass(frozen=True, slots=True)
class Found:
    """A picture: what tells this content of it from another, and its file or how to read it."""

    identity: str
    content: Path | Callable[[], Awaitable[bytes]]


class Served:
    """Which names are answered at all: what is indexed, or is held in an open dead letter.

    A folder holds more than pictures that somebody wanted shown: hidden and ignored files, drafts,
    what a rule excludes. None of it is in the index.
    """

    def __init__(self, presence: Presence, failed: Callable[[], Awaitable[Container[str]]]) -> None:
        """`failed` tells the ids of the pictures with an open dead letter."""
        self._presence = presence
        self._failed = failed

    async def find(self, name: str) -> str:
        """The id of the picture of this name that may be shown.

        The name may be in another form than the id; what is called exactly so comes first.

        Raises:
            Problem: 404 if it may not.
            Unavailable: index or log do not answer.
        """
        try:
            valid_unicode(name)
        except ValueError as error:
            raise missing() from error
        if await self._presence.hash_of(name) is not None:
            return name
        failed = await self._failed()
        if name in failed:
            return name
        async for image_id, _ in self._presence.held(name):
            return image_id
        for form in forms(name):
            if form in failed:
                return form
        raise missing()


class Pictures:
    """The pictures of the main folder and of every other source."""

    def __init__(self, settings: SourceSettings, served: Served, *, max_bytes: int) -> None:
        """An object of a bucket with more than `max_bytes` is not sent."""
        self._main = settings.images_dir
        self._sources = settings.images_sources
        self._served = served
        self._max_bytes = max_bytes
        self._transfers = Transfers(max_bytes=max_bytes, headers=HEADERS)

    async def response(self, name: str) -> Response:
        """The picture of this name with its ETag.

        Raises:
            Problem: 404 for whatever is no picture that is indexed, 413 for one that is too large.
            Unavailable: the bucket, the index or the log cannot be reached now.
        """
        place = self._place(await self._served.find(name))
        if isinstance(place, str):
            return BucketResponse(self._transfers, place)
        local = await asyncio.to_thread(find, *place)
        return FileResponse(
            local.path, media_type=local.media_type, headers=HEADERS, stat_result=local.status
        )

    async def find(self, name: str) -> Found:
        """The picture of this name, unread; raises as `response`."""
        place = self._place(await self._served.find(name))
        if isinstance(place, str):
            _, facts = await self._transfers.run(lambda: self._transfers.facts(place))
            return Found(facts, lambda: self._transfers.run(lambda: self._read(place)))
        local = await asyncio.to_thread(find, *place)
        # A picture that changes has another time.
        return Found(
            f"{local.path}\0{local.status.st_mtime_ns}\0{local.status.st_size}", local.path
        )

    def _place(self, image_id: str) -> str | tuple[Path, str]:
        """A bucket's URI, or a folder and the path below it."""
        source = next((each for each in self._sources if image_id.startswith(each.prefix)), None)
        if source is None:
            return self._main, image_id
        path = image_id.removeprefix(source.prefix)
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
