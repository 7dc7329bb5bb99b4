"""Finding the files of indexed images, and of nothing else in the file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from pathlib import Path

from adapters.name_forms import forms
from gateway.errors import ImageNotFound, ImageTooLarge
from gateway.images.transfers import Transfers
from gateway.search.filters import valid_unicode
from gateway.search.image_lookup import ImageLookup
from imaging.media_types import HEAD_BYTES, content_type
from imaging.sources.settings import SourceSettings
from imaging.sources.storage import read_bytes


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image file on this machine, with the media type of its content."""

    path: Path
    media_type: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class BucketImage:
    """An object of a bucket, which has not been checked or opened yet."""

    uri: str


def find(root: Path, image_id: str) -> LocalImage:
    """The file of an image below `root`. Blocks.

    Raises:
        ImageNotFound: there is no image file inside `root`; links out of it do not count.
    """
    try:
        base = root.resolve(strict=True)
        path = (base / image_id).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise ImageNotFound
        with path.open("rb") as file:
            media_type = content_type(file.read(HEAD_BYTES), image_id)
            status = os.fstat(file.fileno())
    # ValueError: a name with a null character. RuntimeError: links in a circle.
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageNotFound from error
    if media_type is None:
        raise ImageNotFound
    return LocalImage(path, media_type, status)


@dataclass(frozen=True, slots=True)
class UnreadImage:
    """An image that was found but not read.

    `identity` changes with the image's content; `content` is its file, or reads it.
    """

    identity: str
    content: Path | Callable[[], Awaitable[bytes]]


class ServedImages:
    """Which names are served at all: those that are indexed, or have an open dead letter.

    A folder also holds files that are not meant to be shown: hidden and ignored files, drafts,
    files that a rule excludes. None of them is in the index.
    """

    def __init__(
        self, image_lookup: ImageLookup, failed: Callable[[], Awaitable[Container[str]]]
    ) -> None:
        """`failed` returns the ids of the images with an open dead letter."""
        self._image_lookup = image_lookup
        self._failed = failed

    async def find(self, name: str) -> str:
        """The id of the image of this name that may be shown.

        The name may be in another Unicode form than the id; an exact match comes first.

        Raises:
            ImageNotFound: no such image may be shown.
            Unavailable: index or log do not answer.
        """
        try:
            valid_unicode(name)
        except ValueError as error:
            raise ImageNotFound from error
        if await self._image_lookup.hash_of(name) is not None:
            return name
        failed = await self._failed()
        if name in failed:
            return name
        async for image_id, _ in self._image_lookup.matching(name):
            return image_id
        for form in forms(name):
            if form in failed:
                return form
        raise ImageNotFound


class ImageFiles:
    """The files of the main folder and of every other source."""

    def __init__(self, settings: SourceSettings, served: ServedImages, *, max_bytes: int) -> None:
        """An object of a bucket with more than `max_bytes` is refused."""
        self._main = settings.images_dir
        self._sources = settings.images_sources
        self._served = served
        self._max_bytes = max_bytes
        self.transfers = Transfers(max_bytes=max_bytes)

    async def locate(self, name: str) -> LocalImage | BucketImage:
        """The image of this name, to be sent whole.

        Raises:
            ImageNotFound: no image of this name may be shown.
            Unavailable: the index or the log do not answer.
        """
        location = self._location(await self._served.find(name))
        if isinstance(location, str):
            return BucketImage(location)
        return await asyncio.to_thread(find, *location)

    async def find(self, name: str) -> UnreadImage:
        """The image of this name, to be decoded.

        Raises:
            ImageNotFound: no image of this name may be shown.
            ImageTooLarge: it is an object of a bucket with more than `max_bytes`.
            Unavailable: the bucket, the index or the log cannot be reached now.
        """
        location = self._location(await self._served.find(name))
        if isinstance(location, str):
            _, facts = await self.transfers.in_thread(lambda: self.transfers.facts(location))
            return UnreadImage(
                facts, lambda: self.transfers.in_thread(lambda: self._read(location))
            )
        local = await asyncio.to_thread(find, *location)
        # Changing a file also changes its modification time.
        return UnreadImage(
            f"{local.path}\0{local.status.st_mtime_ns}\0{local.status.st_size}", local.path
        )

    def _location(self, image_id: str) -> str | tuple[Path, str]:
        """The URI of an object, or a folder and the path below it."""
        source = next((each for each in self._sources if image_id.startswith(each.prefix)), None)
        if source is None:
            return self._main, image_id
        path = image_id.removeprefix(source.prefix)
        if source.is_local:
            return source.folder, path
        if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ImageNotFound
        return source.uri(path)

    def _read(self, uri: str) -> bytes:
        try:
            data = read_bytes(uri, self._max_bytes + 1)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ImageNotFound from error
        if len(data) > self._max_bytes:
            raise ImageTooLarge
        return data
