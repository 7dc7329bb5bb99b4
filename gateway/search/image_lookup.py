"""Whether the active collection holds an image, with many of these look-ups in one request.

A page loads fifty thumbnails at a time, and many clients may wait for images that they just added.
Without batches each look-up would be a request to the index.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from adapters.index.port import Collection, ImageIndex
from adapters.name_forms import forms
from gateway.errors import NotIndexedYet, TooManyWaiting

GATHER_SECONDS: Final = 0.002
"""How long a look-up waits for others to share its request."""
BATCH_IDS: Final = 500
"""Maximum number of images in one request to the index."""
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.25
MAX_WAITING: Final = 1000
"""Maximum number of requests that wait for images at the same time."""


class ImageLookup:
    """Looks up content hashes of images by id, in batches."""

    def __init__(self, index: ImageIndex, active: Callable[[], Awaitable[Collection]]) -> None:
        self._index = index
        self._active = active
        self._wanted: dict[str, asyncio.Future[str | None]] = {}
        self._look_ups: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """How many requests are waiting for an image now."""

    async def hash_of(self, image_id: str) -> str | None:
        """The content hash of an image that searches can find; None if they cannot.

        Raises:
            Unavailable: the index does not answer.
        """
        future = self._wanted.get(image_id)
        if future is None:
            future = self._wanted[image_id] = asyncio.get_running_loop().create_future()
            if len(self._wanted) == 1:
                task = asyncio.create_task(self._look_up_soon())
                self._look_ups.add(task)
                task.add_done_callback(self._look_ups.discard)
        # A caller that is cancelled must not cancel the answer for the others.
        return await asyncio.shield(future)

    async def matching(self, name: str) -> AsyncIterator[tuple[str, str]]:
        """Ids and content hashes of the images of this name in any Unicode form, itself first.

        The other forms are looked up only if the caller iterates past the first one.

        Raises:
            Unavailable: the index does not answer.
        """
        for some in (forms(name)[:1], forms(name)[1:]):
            hashes = await asyncio.gather(*map(self.hash_of, some))
            for image_id, sha256 in zip(some, hashes, strict=True):
                if sha256 is not None:
                    yield image_id, sha256

    async def _look_up_soon(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        wanted, self._wanted = self._wanted, {}
        names = list(wanted)
        for start in range(0, len(names), BATCH_IDS):
            part = names[start : start + BATCH_IDS]
            try:
                held = await self._index.hashes(await self._active(), part)
            except Exception as error:
                for name in part:
                    wanted[name].set_exception(error)
                    # Retrieve it: perhaps no caller waits for it.
                    wanted[name].exception()
            else:
                for name in part:
                    wanted[name].set_result(held.get(name))

    async def until_indexed(self, image_id: str, sha256: str | None, *, timeout: float) -> None:
        """Return once the active collection holds the image, with this content if one is given.

        Its id may be another Unicode form of the name: some file systems change it.

        Raises:
            NotIndexedYet: after `timeout` seconds; it may still be indexed, or be dead-lettered.
            TooManyWaiting: too many requests are waiting already.
            Unavailable: the index does not answer.
        """
        if self.waiting >= MAX_WAITING:
            raise TooManyWaiting(self.waiting)
        self.waiting += 1
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(timeout):
                while True:
                    async for _, found in self.matching(image_id):
                        if sha256 in (None, found):
                            return
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, LONGEST_PAUSE)
        except TimeoutError as error:
            raise NotIndexedYet(image_id, sha256, timeout) from error
        finally:
            self.waiting -= 1
