"""Read the content that an event describes from its URI."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from adapters.errors import Rejected, Unavailable
from imaging.sources.storage import may_concern_one_file, read_bytes
from schemas.events import ImageAdded


class Superseded(Exception):
    """The content that the event describes cannot be read any more. How to handle that depends on
    the log and on the root of the file; see `consumers.indexing.absent`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Larger files, and images with more pixels, are rejected."""

    max_bytes: int
    max_pixels: int


def read(event: ImageAdded, *, max_bytes: int) -> bytes:
    """The image file's bytes, checked against the event's SHA-256. Blocks.

    Raises:
        Superseded: the file is gone, its content has changed, or its disk fails.
        Rejected: it is larger than `max_bytes`, or the URI is invalid.
        Unavailable: its storage cannot be reached now.
        OSError: it exists but cannot be read.
    """
    if event.size_bytes > max_bytes:
        raise Rejected(f"the file has {event.size_bytes} bytes, more than {max_bytes}")
    try:
        data = read_bytes(event.uri, max_bytes + 1)
    except FileNotFoundError as error:
        raise Superseded(f"{event.uri} is gone") from error
    except (OSError, Unavailable) as error:
        cause = error.__cause__ if isinstance(error, Unavailable) else error
        if not (event.uri.startswith("file://") and may_concern_one_file(cause)):
            raise
        raise Superseded(f"{event.uri} cannot be read: {cause}") from error
    if hashlib.sha256(data).hexdigest() != event.sha256:
        raise Superseded(f"{event.uri} has changed since it was published")
    return data
