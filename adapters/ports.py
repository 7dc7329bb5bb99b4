"""What the application needs of the outside: an embedder, an image index and an event log.

Each Protocol has a real implementation and an in-memory twin; both pass the same contract tests
(`tests/contract`). Every method may raise `adapters.errors.Unavailable`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.model_spec import ModelSpec
from schemas.events import Event
from schemas.topics import Topic

Pixels = NDArray[np.uint8]
"""RGB pixels, uint8, shape [N, height, width, 3] (or [height, width, 3] for one picture)."""

Vectors = NDArray[np.float32]
"""Embeddings of unit length, float32, shape [N, dimension]."""


class Embedder(Protocol):
    """Turns pictures and texts into vectors of one space."""

    async def spec(self, model_name: str) -> ModelSpec:
        """What the served model wants and gives.

        Raises:
            Unavailable: the server is down or the model is not loaded.
        """
        ...

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        """Unit vectors [N, D] of pixels [N, H, W, 3].

        Raises:
            Rejected: the model refuses this input.
            Unavailable: the server cannot answer now.
        """
        ...

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        """Unit vectors [N, D] of N texts; raises as `embed_images`."""
        ...

    async def is_ready(self, model_name: str) -> bool:
        """Whether both encoders of the model answer now; never raises for a server that is down."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture as the index stores it. `vector` has unit length and `dimension` numbers."""

    image_id: str
    uri: str
    sha256: str
    media_type: str
    size_bytes: int
    width: int
    height: int
    modified_at: datetime
    added_at: datetime
    vector: Sequence[float]
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class KnownVector:
    """What the index already knows of some content, so that it need not be inferred again."""

    vector: Sequence[float]
    width: int
    height: int
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and the one model whose vectors it holds."""

    name: str
    model_name: str
    model_version: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Match:
    """One search result; `score` is the cosine similarity, -1 to 1."""

    image_id: str
    score: float
    media_type: str = ""
    width: int = 0
    height: int = 0


class ImageIndex(Protocol):
    """Vectors of pictures, one collection per model version, and which of them is active."""

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        """The collection of this model version, created where it is missing (idempotent)."""
        ...

    async def active(self) -> Collection | None:
        """The collection that searches are answered from; None before the first activation."""
        ...

    async def activate(self, collection: Collection) -> None:
        """Let searches be answered from this collection from now on."""
        ...

    async def drop(self, collection: Collection) -> None:
        """Delete a collection and all it holds; one that is not there is no error.

        Raises:
            Rejected: it is the active one.
        """
        ...

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        """For each of these content hashes that the collection holds, its vector."""
        ...

    async def vectors(
        self, collection: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, Sequence[float]]:
        """For each of these pictures that the collection holds, its vector."""
        ...

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        """Write records, each replacing the one of the same id.

        Returns:
            image id -> reason, for each record that was refused; all others are durable.
        """
        ...

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        """Remove these pictures; ids that are not there are no error."""
        ...

    async def search(
        self, collection: Collection, vector: Sequence[float], limit: int
    ) -> Sequence[Match]:
        """The `limit` nearest pictures, best first.

        Raises:
            Rejected: the vector has the wrong dimension.
        """
        ...

    def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        """(image id, sha256) of all that the collection holds, in no particular order."""
        ...

    async def count(self, collection: Collection) -> int:
        """How many pictures the collection holds."""
        ...

    async def is_ready(self) -> bool:
        """Whether the index answers now; never raises for a server that is down."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands in its topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish; `event` None is a removal (a tombstone on a compacted topic)."""

    key: str
    event: Event | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it was read, still as bytes."""

    position: Position
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Mapping[str, bytes] = field(default_factory=dict)


class EventLog(Protocol):
    """Kafka, seen as an append-only log per topic."""

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """Append all messages; when this returns, each is durable (acks=all).

        Messages of one key keep their order. After `Unavailable` some of the messages may have
        been written: publish the same again, readers are idempotent.

        Raises:
            Rejected: a message can never be written (too large, a key that is not Unicode).
            Unavailable: the broker cannot take them now.
        """
        ...

    def read_all(self, topic: Topic) -> AsyncIterator[LogRecord]:
        """Every record from the beginning to the end as it is at the time of the call.

        Records of one partition come in offset order; those of different partitions interleave.
        """
        ...

    async def is_ready(self) -> bool:
        """Whether the broker answers now; never raises for a broker that is down."""
        ...

    async def close(self) -> None:
        """Flush what is buffered and release connections."""
        ...
