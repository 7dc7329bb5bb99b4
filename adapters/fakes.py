"""In-memory twins of the real adapters: the same promises, no server.

For unit tests and experiments. They pass the contract suite that the real adapters pass.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from adapters.embedder.arrays import Pixels, Vectors
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index.facts import ImageFacts, values
from adapters.index.port import (
    EVERYTHING,
    MAX_RESULTS,
    Between,
    Collection,
    ImageFilter,
    ImageRecord,
    KnownVector,
    Match,
    StoredImage,
)
from adapters.index.storable import kept
from adapters.log.port import LogRecord, Message, Position
from adapters.name_forms import forms
from adapters.naming import collection_name, object_id
from schemas.codec import InvalidEvent, encode, encode_key
from schemas.topics import Topic


@dataclass
class _Switch:
    """Lets a test take the twin down, to see how its user waits."""

    available: bool = True

    def _check(self) -> None:
        if not self.available:
            raise Unavailable(f"{type(self).__name__} is switched off")


@dataclass
class MemoryEmbedder(_Switch):
    """Embeds a picture as its mean colour and a text as a hash, in `spec.dimension` numbers."""

    served: Mapping[str, ModelSpec] = field(default_factory=dict)
    image_calls: int = 0
    text_calls: int = 0

    async def spec(self, model_name: str) -> ModelSpec:
        self._check()
        if model_name not in self.served:
            raise Unavailable(f"the model {model_name!r} is not loaded")
        return self.served[model_name]

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        spec = await self.spec(model_name)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (spec.height, spec.width, 3):
            raise Rejected(f"pixels are {pixels.dtype} {list(pixels.shape)}")
        self.image_calls += 1
        colour = pixels.reshape(len(pixels), -1, 3).mean(axis=1).astype(np.float32) + 1
        vectors = np.zeros((len(pixels), spec.dimension), np.float32)
        vectors[:, :3] = colour
        return _unit(vectors)

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        spec = await self.spec(model_name)
        self.text_calls += 1
        return _unit(np.stack([_text_vector(text, spec.dimension) for text in texts]))

    async def is_ready(self, model_name: str) -> bool:
        return self.available and model_name in self.served

    async def close(self) -> None:
        return None


def _text_vector(text: str, dimension: int) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@dataclass
class MemoryIndex(_Switch):
    """Collections as dictionaries, searched exhaustively."""

    collections: dict[str, Collection] = field(default_factory=dict)
    records: dict[str, dict[str, ImageRecord]] = field(default_factory=dict)
    _active: str | None = None

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        self._check()
        name = collection_name(spec)
        if name not in self.collections:
            self.collections[name] = Collection(
                name, spec.name, spec.version, spec.dimension, secrets.token_hex(4)
            )
            self.records[name] = {}
        return self.collections[name]

    async def find(self, name: str) -> Collection | None:
        self._check()
        return self.collections.get(name)

    async def all_collections(self) -> Sequence[Collection]:
        self._check()
        return [self.collections[name] for name in sorted(self.collections)]

    async def active(self) -> Collection | None:
        self._check()
        return self.collections.get(self._active) if self._active else None

    async def activate(self, collection: Collection) -> None:
        self._check()
        if collection.name not in self.collections:
            raise Rejected(f"there is no collection {collection.name!r}")
        self._active = collection.name

    async def drop(self, collection: Collection) -> None:
        self._check()
        if collection.name == self._active:
            raise Rejected(f"{collection.name} is active")
        self.collections.pop(collection.name, None)
        self.records.pop(collection.name, None)

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        self._check()
        wanted = set(sha256s)
        held = sorted(self._held(collection).values(), key=lambda record: record.facts_version)
        return {
            record.sha256: KnownVector(vector=record.vector, **values(ImageFacts, record))
            for record in held
            if record.sha256 in wanted
        }

    async def vectors(
        self, collection: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, Sequence[float]]:
        self._check()
        held = self._held(collection)
        return {image_id: held[image_id].vector for image_id in image_ids if image_id in held}

    def _held(self, collection: Collection) -> dict[str, ImageRecord]:
        if collection.name not in self.records:
            raise Unavailable(f"there is no collection {collection.name}")
        return self.records[collection.name]

    def _still_there(self, collection: Collection) -> None:
        found = self.collections.get(collection.name)
        if found is None or found.incarnation != collection.incarnation:
            raise Unavailable(f"{collection.name} is gone, or was made anew")

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        self._check()
        self._still_there(collection)
        refused: dict[str, str] = {}
        for record in records:
            if len(record.vector) != collection.dimension:
                refused[record.image_id] = (
                    f"the vector has {len(record.vector)} numbers, not {collection.dimension}"
                )
            else:
                self._held(collection)[record.image_id] = kept(record)
        return refused

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        self._check()
        self._still_there(collection)
        for image_id in image_ids:
            self._held(collection).pop(image_id, None)

    async def search(
        self,
        collection: Collection,
        vector: Sequence[float],
        limit: int,
        *,
        where: ImageFilter = EVERYTHING,
        details: Sequence[str] = (),
        with_vectors: bool = False,
    ) -> Sequence[Match]:
        self._check()
        if len(vector) != collection.dimension:
            raise Rejected(f"the vector has {len(vector)} numbers, not {collection.dimension}")
        if limit > MAX_RESULTS:
            raise Rejected(f"the limit {limit} is over {MAX_RESULTS}")
        folders = forms(where.folder)
        matches = [
            Match(
                image_id=record.image_id,
                score=float(np.dot(record.vector, vector)),
                details={name: getattr(record, name) for name in details},
                vector=record.vector if with_vectors else (),
            )
            for record in self._held(collection).values()
            if record.image_id.startswith(folders) and _passes(record, where)
        ]
        return sorted(matches, key=lambda match: (-match.score, match.image_id))[:limit]

    async def walk(
        self, collection: Collection, after: str | None, limit: int
    ) -> Sequence[StoredImage]:
        self._check()
        held = sorted(self._held(collection).values(), key=lambda r: object_id(r.image_id))
        return [
            StoredImage(record.image_id, record.sha256, record.vector)
            for record in held
            if after is None or object_id(record.image_id) > object_id(after)
        ][:limit]

    async def of_content(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        self._check()
        found: dict[str, list[str]] = {}
        for record in self._held(collection).values():
            if record.sha256 in sha256s:
                found.setdefault(record.sha256, []).append(record.image_id)
        return {sha256: sorted(ids, key=object_id) for sha256, ids in found.items()}

    async def hashes(self, collection: Collection, image_ids: Sequence[str]) -> Mapping[str, str]:
        self._check()
        held = self._held(collection)
        return {image_id: held[image_id].sha256 for image_id in image_ids if image_id in held}

    async def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        self._check()
        for record in list(self._held(collection).values()):
            yield record.image_id, record.sha256

    async def count(self, collection: Collection) -> int:
        self._check()
        return len(self._held(collection))

    async def is_ready(self) -> bool:
        return self.available

    async def close(self) -> None:
        return None


def _passes(record: ImageRecord, where: ImageFilter) -> bool:
    return (where.has_gps is None or (record.latitude is not None) == where.has_gps) and all(
        _matches(getattr(record, name), wanted) for name, wanted in where.by_property().items()
    )


def _matches(value: Any, wanted: Between[Any] | tuple[str, ...] | str) -> bool:
    if isinstance(wanted, Between):
        return wanted.holds(value)
    if isinstance(wanted, tuple):
        return value in wanted
    return (value or "").strip() == wanted.strip()


@dataclass
class MemoryEventLog(_Switch):
    """Topics as lists. Keys are spread over `topic.partitions` by hash, as Kafka does."""

    topics: dict[str, list[list[LogRecord]]] = field(default_factory=dict)

    def _partitions(self, topic: Topic) -> list[list[LogRecord]]:
        return self.topics.setdefault(topic.name, [[] for _ in range(topic.partitions)])

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        self._check()
        prepared = [_prepared(message) for message in messages]
        positions = []
        for message, (key, value) in zip(messages, prepared, strict=True):
            partitions = self._partitions(topic)
            number = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % len(partitions)
            position = Position(number, len(partitions[number]))
            partitions[number].append(
                LogRecord(
                    position=position,
                    key=key,
                    value=value,
                    timestamp_ms=time.time_ns() // 1_000_000,
                    headers={name: text.encode() for name, text in message.headers.items()},
                )
            )
            positions.append(position)
        return positions

    async def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        self._check()
        for number, partition in enumerate([list(each) for each in self._partitions(topic)]):
            if isinstance(start, Mapping):
                if number not in start:
                    continue
                first = bisect_left(partition, start[number], key=lambda each: each.position.offset)
            else:
                first = _first(partition, start)
            for record in partition[first:]:
                yield record

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        self._check()
        return {n: (0, len(records)) for n, records in enumerate(self._partitions(topic))}

    async def is_ready(self) -> bool:
        return self.available

    async def close(self) -> None:
        return None


def _first(records: Sequence[LogRecord], start: int | datetime | None) -> int:
    """Index of the record to begin with."""
    if isinstance(start, datetime):
        milliseconds = math.floor(start.timestamp() * 1000)
        late = (i for i, record in enumerate(records) if record.timestamp_ms >= milliseconds)
        return next(late, len(records))
    return start or 0


def _prepared(message: Message) -> tuple[bytes, bytes | None]:
    try:
        return encode_key(message.key), None if message.event is None else encode(message.event)
    except InvalidEvent as error:
        raise Rejected(str(error)) from error
