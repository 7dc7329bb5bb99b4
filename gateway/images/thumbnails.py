"""Thumbnails, made once and stored in a folder of bounded size."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from adapters.errors import Rejected
from adapters.index.facts import FACTS_VERSION
from gateway.errors import ImageNotFound
from gateway.images.files import ImageFiles, UnreadImage
from imaging.decoders import Decoders

logger = logging.getLogger(__name__)

Size = Literal[128, 256, 512, 1024]
"""Longest edge, in pixels. Few sizes, so that requests cannot fill the folder."""

SHARE_AFTER_CLEARING: Final = 0.8
"""How full the folder is after clearing it, as a fraction of its limit."""
REFUSED_SECONDS: Final = 600.0
"""How long the reason why an image cannot be decoded is remembered."""
REFUSED_COUNT: Final = 10_000
"""How many of these reasons are remembered."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A thumbnail that may not exist yet; `tag` identifies its content."""

    tag: str
    path: Path
    size: Size
    image: UnreadImage


class Thumbnails:
    """Makes and stores thumbnails; several processes may share the folder."""

    def __init__(
        self,
        images: ImageFiles,
        folder: Path,
        decoders: Decoders,
        *,
        max_bytes: int,
        max_image_bytes: int,
        readers: int,
    ) -> None:
        """
        Args:
            folder: holds up to about `max_bytes` of thumbnails.
            max_image_bytes: images with more bytes are not decoded.
            readers: how many images that are not on this machine are read at once.
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

    async def find(self, name: str, size: Size) -> Thumbnail:
        """The thumbnail of the image of this name, which need not be made yet.

        Raises:
            ImageNotFound, ImageTooLarge, Unavailable: as `ImageFiles.find`.
        """
        image = await self._images.find(name)
        # The version: thumbnails that earlier releases made of the same file are not shown again.
        facts = f"{FACTS_VERSION}\0{image.identity}\0{size}".encode("utf-8", "surrogateescape")
        tag = hashlib.sha256(facts).hexdigest()[:40]
        return Thumbnail(tag, self._folder / tag[:2] / f"{tag}.jpg", size, image)

    async def file(self, thumbnail: Thumbnail) -> Path:
        """The thumbnail's JPEG file, made if it is not there.

        Raises:
            ImageNotFound: the image has gone.
            Rejected: the image cannot be decoded.
            Unavailable: the image cannot be read now.
        """
        if not await asyncio.to_thread(_touch, thumbnail.path):
            await self._make_once(thumbnail)
        return thumbnail.path

    async def _make_once(self, thumbnail: Thumbnail) -> None:
        """Make it; concurrent requests for the same thumbnail wait for one task."""
        path = thumbnail.path
        task = self._being_made.get(path)
        if task is None:
            task = asyncio.create_task(self._make(thumbnail))
            self._being_made[path] = task
            task.add_done_callback(lambda done: self._made(path, done))
        # A request that is cancelled must not cancel the task that others wait for.
        await asyncio.shield(task)

    def _made(self, path: Path, task: asyncio.Task[None]) -> None:
        del self._being_made[path]
        if not task.cancelled():
            task.exception()  # Retrieve it: perhaps no request waits for it.

    async def _make(self, thumbnail: Thumbnail) -> None:
        try:
            data = await self._shrink(thumbnail)
        except FileNotFoundError as error:
            raise ImageNotFound from error
        await asyncio.to_thread(_write, thumbnail.path, data)
        self._written += len(data)
        if self._written > self._max_bytes * (1 - SHARE_AFTER_CLEARING):
            self._written = 0
            await asyncio.to_thread(_clear, self._folder, self._max_bytes)

    async def _shrink(self, thumbnail: Thumbnail) -> bytes:
        """The thumbnail's bytes.

        An image that was refused recently is not decoded again: the attempt may have taken all
        the time that decoding is allowed.
        """
        path, content = thumbnail.path, thumbnail.image.content
        if (refusal := self._refused.get(path)) is not None:
            when, reason = refusal
            if time.monotonic() - when < REFUSED_SECONDS:
                raise Rejected(reason)
        try:
            if isinstance(content, Path):
                return await self._thumbnail(content, thumbnail.size)
            async with self._reading:
                return await self._thumbnail(await content(), thumbnail.size)
        except Rejected as error:
            self._refused[path] = (time.monotonic(), str(error))
            if len(self._refused) > REFUSED_COUNT:
                self._refused.popitem(last=False)
            raise

    async def _thumbnail(self, source: Path | bytes, size: Size) -> bytes:
        return await self._decoders.thumbnail(source, edge=size, max_bytes=self._max_image_bytes)


def _touch(file: Path) -> bool:
    """Whether the file is there; sets its time to now, which records its last use."""
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
    """Delete the least recently used files if the folder holds more than `max_bytes`."""
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # Another process is clearing the folder, too.
        if path.is_file():
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= max_bytes:
        return
    for _, size, path in sorted(files):
        path.unlink(missing_ok=True)
        total -= size
        if total <= max_bytes * SHARE_AFTER_CLEARING:
            break
    logger.info("the folder of thumbnails was reduced to %d bytes", total)
