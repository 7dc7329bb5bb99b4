"""Small versions of the pictures, made once and kept in a bounded folder."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections import OrderedDict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator
from starlette.responses import FileResponse, Response

from adapters.errors import Rejected
from adapters.index.facts import FACTS_VERSION
from gateway.http.problems import Problem
from gateway.images.files import HEADERS, Found, Pictures
from gateway.images.transfers import missing
from imaging.decoders import Decoders

logger = logging.getLogger(__name__)


def _number(value: object) -> object:
    # A query's values are texts, which a literal number does not equal.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


Size = Annotated[Literal[128, 256, 512, 1024], BeforeValidator(_number)]
"""Longest edge, in pixels. Few sizes, so that nobody can fill the folder with many."""

MEDIA_TYPE: Final = "image/jpeg"
KEPT_SHARE: Final = 0.8
"""What is left of a full folder after clearing."""
REFUSED_SECONDS: Final = 600.0
REFUSED_COUNT: Final = 10_000
"""Pictures of which it is remembered, for that long, that they cannot be decoded, and why."""


class Thumbnails:
    """Makes and keeps thumbnails; several processes may share the folder."""

    def __init__(
        self,
        images: Pictures,
        folder: Path,
        decoders: Decoders,
        *,
        max_bytes: int,
        max_image_bytes: int,
        readers: int,
    ) -> None:
        """
        Args:
            folder: takes up to about `max_bytes` of thumbnails.
            max_image_bytes: what a picture may have.
            readers: so many pictures that are not on this machine are read at once.
        """
        self._images = images
        self._folder = folder
        self._decoders = decoders
        self._max_bytes = max_bytes
        self._max_image_bytes = max_image_bytes
        self._reading = asyncio.Semaphore(readers)
        self._written = 0
        self._being_made: dict[Path, asyncio.Task[None]] = {}
        self._refused: OrderedDict[Path, tuple[float, str]] = OrderedDict()

    async def response(self, name: str, size: Size, if_none_match: str | None) -> Response:
        """The thumbnail, or 304 if the caller has it already.

        Raises:
            Problem: 404 for what is not a picture of ours, 422 for one that cannot be decoded.
        """
        found = await self._images.find(name)
        # What earlier versions made of the same file is not shown again.
        facts = f"{FACTS_VERSION}\0{found.identity}\0{size}".encode("utf-8", "surrogateescape")
        identity = hashlib.sha256(facts).hexdigest()[:40]
        headers = {**HEADERS, "ETag": f'"{identity}"'}
        if if_none_match is not None and identity in if_none_match:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        kept = self._folder / identity[:2] / f"{identity}.jpg"
        if not await asyncio.to_thread(_touch, kept):
            await self._make_once(found, kept, size)
        return FileResponse(kept, media_type=MEDIA_TYPE, headers=headers)

    async def _make_once(self, found: Found, kept: Path, size: Size) -> None:
        """Make it; whoever else asks meanwhile waits for the same."""
        task = self._being_made.get(kept)
        if task is None:
            task = asyncio.create_task(self._make(found, kept, size))
            self._being_made[kept] = task
            task.add_done_callback(lambda done: self._made(kept, done))
        # One caller that goes away must not take it from the others, nor from those who come after.
        await asyncio.shield(task)

    def _made(self, kept: Path, task: asyncio.Task[None]) -> None:
        del self._being_made[kept]
        if not task.cancelled():
            task.exception()  # Perhaps nobody waits for it any more.

    async def _make(self, found: Found, kept: Path, size: Size) -> None:
        try:
            data = await self._shrink(found, kept, size)
        except Rejected as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except FileNotFoundError as error:
            raise missing() from error
        await asyncio.to_thread(_write, kept, data)
        self._written += len(data)
        if self._written > self._max_bytes * (1 - KEPT_SHARE):
            self._written = 0
            await asyncio.to_thread(_clear, self._folder, self._max_bytes)

    async def _shrink(self, found: Found, kept: Path, size: Size) -> bytes:
        """The thumbnail. What was refused not long ago is not tried again, as it may have taken all
        the time that it was given."""
        if (before := self._refused.get(kept)) is not None:
            when, reason = before
            if time.monotonic() - when < REFUSED_SECONDS:
                raise Rejected(reason)
        try:
            if isinstance(found.content, Path):
                return await self._thumbnail(found.content, size)
            async with self._reading:
                return await self._thumbnail(await found.content(), size)
        except Rejected as error:
            self._refused[kept] = (time.monotonic(), str(error))
            if len(self._refused) > REFUSED_COUNT:
                self._refused.popitem(last=False)
            raise

    async def _thumbnail(self, source: Path | bytes, size: Size) -> bytes:
        return await self._decoders.thumbnail(source, edge=size, max_bytes=self._max_image_bytes)


def _touch(file: Path) -> bool:
    """Whether the file is there; its time becomes now, as that of its last use."""
    try:
        os.utime(file)
    except OSError:
        return False
    return True


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "wb") as part:
        part.write(data)
    Path(name).replace(file)


def _clear(folder: Path, max_bytes: int) -> None:
    """Delete what was used longest ago, once the folder holds more than `max_bytes`."""
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # Another process clears as well.
        if path.is_file():
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= max_bytes:
        return
    for _, size, path in sorted(files):
        path.unlink(missing_ok=True)
        total -= size
        if total <= max_bytes * KEPT_SHARE:
            break
    logger.info("thumbnails were cleared to %d bytes", total)
