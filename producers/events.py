"""The records of `images`: an addition for each image, and its removal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from adapters.log.port import Message
from producers.known_image import FileStat, ListedStat, to_datetime
from producers.rules import media_type_by_name
from schemas.codec import encode
from schemas.events import ImageAdded, now


@dataclass(frozen=True, slots=True)
class EventFactory:
    """Makes the events of one source. It is small, because it is sent to the helper processes.

    `id_prefix` and `uri_prefix` precede the path in the source in ids and URIs.
    """

    id_prefix: str
    uri_prefix: str

    def addition(
        self,
        path: str,
        sha256: bytes,
        stat: FileStat | ListedStat,
        mount: str | None = None,
        media_type: str | None = None,
    ) -> bytes:
        """The event of an image that is new or has changed, encoded.

        Making and encoding events is the largest part of a scan's work. It is therefore done in the
        thread or process that reads the file, not on the event loop.
        """
        uri = self.uri_prefix + quote(path)
        return encode(addition(self.id_prefix + path, uri, sha256, stat, now(), mount, media_type))


def addition(
    image_id: str,
    uri: str,
    sha256: bytes,
    stat: FileStat | ListedStat,
    moment: datetime,
    mount: str | None = None,
    media_type: str | None = None,
) -> ImageAdded:
    """The event of an image that is new, has changed, or is below another mount point.

    `media_type` is that of the content. If it is None (a damaged file), the name decides.
    """
    return ImageAdded(
        occurred_at=moment,
        image_id=image_id,
        uri=uri,
        sha256=sha256.hex(),
        size_bytes=stat.size,
        media_type=media_type or media_type_by_name(image_id) or "application/octet-stream",
        modified_at=None if stat.modified_us is None else to_datetime(stat.modified_us),
        added_at=moment,
        mount=mount,
    )


def removal(image_id: str) -> Message:
    """The tombstone of an image that no longer exists."""
    return Message(key=image_id, event=None)
