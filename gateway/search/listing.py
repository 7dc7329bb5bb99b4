"""Listing images without a query: those that were added last come first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.index.port import EVERYTHING, Collection, ImageFilter, ImageIndex, ListedImage
from gateway.auth.cursors import Cursors, fingerprint


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Some images of the order, the collection they are in, and the cursor of the next page."""

    collection: Collection
    images: Sequence[ListedImage]
    next_cursor: str | None


class Listing:
    """Lists the images of the active collection in pages.

    The order depends on the images alone, not on the model, so a cursor stays valid when another
    collection is activated. An image that is added meanwhile is on no later page.
    """

    def __init__(
        self, index: ImageIndex, cursors: Cursors, active: Callable[[], Awaitable[Collection]]
    ) -> None:
        """`active` returns the collection that answers searches."""
        self._index = index
        self._cursors = cursors
        self._active = active

    async def newest(
        self,
        limit: int,
        *,
        where: ImageFilter = EVERYTHING,
        filters: Mapping[str, object] | None = None,
        details: Sequence[str] = (),
        cursor: str | None = None,
    ) -> ListingPage:
        """The next images after `cursor`; `filters` identifies `where` in cursors.

        Raises:
            InvalidField: the cursor does not belong to this request.
            Unavailable: the index does not answer.
        """
        question = fingerprint("newest", filters or {})
        before = None if cursor is None else _position(self._cursors.check(cursor, question))
        collection = await self._active()
        # One more than wanted says whether there is a next page.
        found = await self._index.newest(
            collection, limit + 1, before=before, where=where, details=details
        )
        images = found[:limit]
        if len(found) <= limit:
            return ListingPage(collection, images, None)
        last = images[-1]
        position = f"{last.added_at.isoformat()} {last.image_id}"
        return ListingPage(collection, images, self._cursors.sign(question, position))


def _position(text: str) -> tuple[datetime, str]:
    moment, _, image_id = text.partition(" ")
    return datetime.fromisoformat(moment), image_id
