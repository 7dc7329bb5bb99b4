"""Hashes a file while it is read in chunks, and remembers its first bytes."""

from __future__ import annotations

import hashlib
from typing import Final

from imaging.media_types import HEAD_BYTES, content_type

CHUNK_BYTES: Final = 1024 * 1024


class ContentHash:
    """SHA-256, size in bytes and first bytes of the chunks so far."""

    __slots__ = ("_digest", "_head", "size")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._head = b""
        self.size = 0

    def update(self, chunk: bytes) -> None:
        """Add the next chunk."""
        if not self.size:
            self._head = chunk[:HEAD_BYTES]
        self._digest.update(chunk)
        self.size += len(chunk)

    def sha256(self) -> bytes:
        """The digest, 32 bytes."""
        return self._digest.digest()

    def media_type(self, path: str) -> str | None:
        """The media type by the first bytes; see `imaging.media_types.content_type`."""
        return content_type(self._head, path)
