"""Image files as HTTP responses: from the local disk, or streamed from a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import ImageNotFound
from gateway.images.files import BucketImage, LocalImage
from gateway.images.transfers import ObjectReader, Transfers
from imaging.media_types import HEAD_BYTES, content_type

HEADERS: Final = {
    "Cache-Control": "private, max-age=60",
    "X-Content-Type-Options": "nosniff",
    # An image that is opened on its own is data; a browser must not run anything in it.
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def image_response(image: LocalImage | BucketImage, transfers: Transfers) -> Response:
    """The image with its ETag; objects of buckets are read through `transfers`."""
    if isinstance(image, BucketImage):
        return BucketResponse(transfers, image.uri)
    return FileResponse(
        image.path, media_type=image.media_type, headers=HEADERS, stat_result=image.status
    )


class BucketResponse(Response):
    """Streams an object of a bucket. It is opened when the response is sent, and always closed.

    Raises when sent:
        ImageNotFound: there is no such object, or it is not an image.
        ImageTooLarge, Unavailable: as `Transfers.facts`.
    """

    def __init__(self, transfers: Transfers, uri: str) -> None:
        super().__init__()
        self._transfers = transfers
        self._uri = uri

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the object."""
        async with self._transfers.slots:
            size, facts = await self._transfers.in_thread(lambda: self._transfers.facts(self._uri))
            reader = ObjectReader(self._transfers, self._uri)
            try:
                start = await reader.read()
                media_type = content_type(start[:HEAD_BYTES], self._uri)
                if media_type is None:
                    raise ImageNotFound
                tag = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
                headers = {**HEADERS, "ETag": f'"{tag}"'}
                if size is not None:
                    headers["Content-Length"] = str(size)
                # For HEAD, the start is enough.
                pieces = _nothing() if scope["method"] == "HEAD" else reader.from_start(start)
                sending = StreamingResponse(pieces, media_type=media_type, headers=headers)
                await sending(scope, receive, send)
            finally:
                reader.close()


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for piece in empty:
        yield piece
