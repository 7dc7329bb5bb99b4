"""The folders that hold most of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.index.port import Collection, ImageIndex
from gateway.ttl_cache import TtlCache

SAMPLE: Final = 10_000
"""Maximum number of images that are read. Counting all would take a time that grows with the
collection, as Weaviate reads each object to group by a property."""
STEP: Final = 2_500


@dataclass(frozen=True, slots=True)
class FolderCount:
    """A folder, and how many images are in it or below it."""

    folder: str
    images: int


@dataclass(frozen=True, slots=True)
class FolderCounts:
    """Folders of one level, those with the most images first.

    `elsewhere` counts the images that are in none of them. The numbers are estimates unless
    `exact`; `images` is always exact.
    """

    images: int
    folders: Sequence[FolderCount]
    elsewhere: int
    exact: bool

    def first(self, limit: int) -> FolderCounts:
        """The first `limit` folders; the images of the others are elsewhere."""
        rest = sum(each.images for each in self.folders[limit:])
        return FolderCounts(self.images, self.folders[:limit], self.elsewhere + rest, self.exact)


class Folders:
    """Counts the images by folder: all of a small collection, or a sample of a large one."""

    def __init__(self, index: ImageIndex, active: Callable[[], Awaitable[Collection]]) -> None:
        """`active` returns the collection that answers searches."""
        self._index = index
        self._active = active
        self._counts = TtlCache(self._count)

    async def counts(self) -> FolderCounts:
        """The folders, which may be some seconds old.

        Raises:
            Unavailable: the index does not answer.
        """
        return await self._counts.get()

    async def _count(self) -> FolderCounts:
        collection = await self._active()
        ids: list[str] = []
        after = None
        while len(ids) < SAMPLE:
            # The order is that of hashes, so its beginning is a random sample, and always the same.
            page = await self._index.scroll(collection, after, STEP, with_vectors=False)
            ids += [image.image_id for image in page]
            if len(page) < STEP:
                return _counted(ids, len(ids))
            after = page[-1].image_id
        return _counted(ids, await self._index.count(collection))


def _counted(ids: Sequence[str], total: int) -> FolderCounts:
    found = by_folder(ids)
    scale = total / len(ids) if ids else 1.0
    folders = [
        FolderCount(folder, round(images * scale))
        for folder, images in sorted(found.items(), key=lambda each: (-each[1], each[0]))
    ]
    elsewhere = max(0, total - sum(each.images for each in folders))
    return FolderCounts(total, folders, elsewhere, exact=total <= len(ids))


def by_folder(ids: Sequence[str]) -> Counter[str]:
    """Folder -> how many of these images are in it or below it.

    The folders are those of the first level that has several folders or an image beside them; if
    there is none, the one folder that holds all images.
    """
    depth = 1
    found = _at_depth(ids, depth)
    while len(found) == 1:
        deeper = _at_depth(ids, depth + 1)
        if deeper.total() < len(ids):
            break
        found, depth = deeper, depth + 1
    return found


def _at_depth(ids: Sequence[str], depth: int) -> Counter[str]:
    """Folder of this depth -> its images; those that are less deep are left out."""
    parts = (image_id.split("/") for image_id in ids)
    return Counter("/".join(each[:depth]) for each in parts if len(each) > depth)
