"""A fake (in-memory) image index, without a server.

For unit tests and experiments. It passes the contract suite that the real adapter passes.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.fake import Fake
from adapters.index.facts import ImageFacts, values
from adapters.index.port import (
    EVERYTHING,
    MAX_RESULTS,
    Between,
    Collection,
    ImageFilter,
    ImageRecord,
    KnownVector,
    ListedImage,
    Match,
    StoredImage,
)
from adapters.index.storable import storable
from adapters.name_forms import forms
from adapters.naming import collection_name, object_id


@dataclass
class FakeImageIndex(Fake):
    """Collections as dictionaries, with exhaustive search."""

    collections: dict[str, Collection] = field(default_factory=dict)
    records: dict[str, dict[str, ImageRecord]] = field(default_factory=dict)
    _active: str | None = None

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        self.check()
        name = collection_name(spec)
        if name not in self.collections:
            self.collections[name] = Collection(
                name, spec.name, spec.version, spec.dimension, secrets.token_hex(4)
            )
            self.records[name] = {}
        return self.collections[name]

    async def find(self, name: str) -> Collection | None:
        self.check()
        return self.collections.get(name)

    async def all_collections(self) -> Sequence[Collection]:
        self.check()
        return [self.collections[name] for name in sorted(self.collections)]

    async def active(self) -> Collection | None:
        self.check()
        return self.collections.get(self._active) if self._active else None

    async def activate(self, collection: Collection) -> None:
        self.check()
        if collection.name not in self.collections:
            raise Rejected(f"there is no collection {collection.name!r}")
        self._active = collection.name

    async def drop(self, collection: Collection) -> None:
        self.check()
        if collection.name == self._active:
            raise Rejected(f"{collection.name} is active")
        self.collections.pop(collection.name, None)
        self.records.pop(collection.name, None)

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        self.check()
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
        self.check()
        held = self._held(collection)
        return {image_id: held[image_id].vector for image_id in image_ids if image_id in held}

    def _held(self, collection: Collection) -> dict[str, ImageRecord]:
        if collection.name not in self.records:
            raise Unavailable(f"there is no collection {collection.name}")
        return self.records[collection.name]

    def _check_incarnation(self, collection: Collection) -> None:
        found = self.collections.get(collection.name)
        if found is None or found.incarnation != collection.incarnation:
            raise Unavailable(f"{collection.name} was deleted or replaced")

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        self.check()
        self._check_incarnation(collection)
        refused: dict[str, str] = {}
        for record in records:
            if len(record.vector) != collection.dimension:
                refused[record.image_id] = (
                    f"the vector has {len(record.vector)} numbers, not {collection.dimension}"
                )
            else:
                self._held(collection)[record.image_id] = storable(record)
        return refused

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        self.check()
        self._check_incarnation(collection)
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
        self.check()
        if len(vector) != collection.dimension:
            raise Rejected(f"the vector has {len(vector)} numbers, not {collection.dimension}")
        if limit > MAX_RESULTS:
            raise Rejected(f"the limit {limit} is over {MAX_RESULTS}")
        matches = [
            Match(
                image_id=record.image_id,
                score=float(np.dot(record.vector, vector)),
                details={name: getattr(record, name) for name in details},
                vector=record.vector if with_vectors else (),
            )
            for record in self._passing(collection, where)
        ]
        return sorted(matches, key=lambda match: (-match.score, match.image_id))[:limit]

    def _passing(self, collection: Collection, where: ImageFilter) -> list[ImageRecord]:
        folders = forms(where.folder)
        return [
            record
            for record in self._held(collection).values()
            if record.image_id.startswith(folders) and _passes(record, where)
        ]

    async def newest(
        self,
        collection: Collection,
        limit: int,
        *,
        before: tuple[datetime, str] | None = None,
        where: ImageFilter = EVERYTHING,
        details: Sequence[str] = (),
    ) -> Sequence[ListedImage]:
        self.check()
        if limit > MAX_RESULTS:
            raise Rejected(f"the limit {limit} is over {MAX_RESULTS}")
        images = [
            ListedImage(
                record.image_id, record.added_at, {name: getattr(record, name) for name in details}
            )
            for record in self._passing(collection, where)
            if record.added_at is not None
        ]
        images.sort(key=lambda image: image.image_id)
        images.sort(key=lambda image: image.added_at, reverse=True)
        return [
            image
            for image in images
            if before is None
            or image.added_at < before[0]
            or (image.added_at == before[0] and image.image_id > before[1])
        ][:limit]

    async def scroll(
        self,
        collection: Collection,
        after: str | None,
        limit: int,
        *,
        with_vectors: bool = True,
    ) -> Sequence[StoredImage]:
        self.check()
        held = sorted(self._held(collection).values(), key=lambda r: object_id(r.image_id))
        return [
            StoredImage(record.image_id, record.sha256, record.vector if with_vectors else ())
            for record in held
            if after is None or object_id(record.image_id) > object_id(after)
        ][:limit]

    async def ids_by_sha256(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        self.check()
        found: dict[str, list[str]] = {}
        for record in self._held(collection).values():
            if record.sha256 in sha256s:
                found.setdefault(record.sha256, []).append(record.image_id)
        return {sha256: sorted(ids, key=object_id) for sha256, ids in found.items()}

    async def hashes(self, collection: Collection, image_ids: Sequence[str]) -> Mapping[str, str]:
        self.check()
        held = self._held(collection)
        return {image_id: held[image_id].sha256 for image_id in image_ids if image_id in held}

    async def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        self.check()
        for record in list(self._held(collection).values()):
            yield record.image_id, record.sha256

    async def count(self, collection: Collection) -> int:
        self.check()
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
