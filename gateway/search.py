"""Answering a search: resolve the active collection, embed with its model, search it by name."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from adapters.errors import Unavailable
from adapters.ports import Collection, Embedder, ImageIndex, Match
from gateway.events import SearchEvents
from schemas.events import SearchKind, SearchPerformed, SearchResult, SearchTimings, now

CACHED_QUERIES = 4096
ALIAS_SECONDS = 1.0
"""How long a resolved alias is trusted. A flip keeps the old collection, so nothing breaks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search found, and where."""

    search_id: UUID
    collection: Collection
    matches: Sequence[Match]


class Search:
    """Text to matches. Query and collection always belong to the same model version."""

    def __init__(self, embedder: Embedder, index: ImageIndex, events: SearchEvents) -> None:
        self._embedder = embedder
        self._index = index
        self._events = events
        self._vectors: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._active: tuple[float, Collection] | None = None

    async def by_text(self, text: str, limit: int, client: str | None = None) -> Answer:
        """The pictures that `text` describes best.

        Raises:
            Unavailable: a server that is needed does not answer.
        """
        started = time.perf_counter()
        collection = await self.active()
        vector = await self._embedded(collection, text)
        embedded = time.perf_counter()
        matches = await self._index.search(collection, vector, limit)
        ended = time.perf_counter()
        answer = Answer(uuid4(), collection, matches)
        self._events.add(
            SearchPerformed(
                occurred_at=now(),
                search_id=answer.search_id,
                kind=SearchKind.TEXT,
                text=text,
                limit=limit,
                model_name=collection.model_name,
                model_version=collection.model_version,
                collection=collection.name,
                results=tuple(
                    SearchResult(image_name=match.image_id, score=match.score) for match in matches
                ),
                latency_ms=SearchTimings(
                    embed=(embedded - started) * 1e3,
                    query=(ended - embedded) * 1e3,
                    total=(ended - started) * 1e3,
                ),
                client=client,
            )
        )
        return answer

    async def active(self) -> Collection:
        """The collection that answers searches now.

        Raises:
            Unavailable: Weaviate does not answer, or nothing was activated yet.
        """
        if self._active is not None and time.monotonic() - self._active[0] < ALIAS_SECONDS:
            return self._active[1]
        collection = await self._index.active()
        if collection is None:
            raise Unavailable("no collection is active yet")
        self._active = (time.monotonic(), collection)
        return collection

    async def _embedded(self, collection: Collection, text: str) -> list[float]:
        key = (collection.name, text)
        if (cached := self._vectors.get(key)) is not None:
            self._vectors.move_to_end(key)
            return cached
        await self.check_model(collection)
        vectors = await self._embedder.embed_texts(collection.model_name, [text])
        vector: list[float] = vectors[0].tolist()
        self._vectors[key] = vector
        if len(self._vectors) > CACHED_QUERIES:
            self._vectors.popitem(last=False)
        return vector

    async def check_model(self, collection: Collection) -> None:
        """Make sure that the served model is the one that filled the collection.

        Raises:
            Unavailable: another version is served, so its vectors would mean something else.
        """
        spec = await self._embedder.spec(collection.model_name)
        if spec.version != collection.model_version:
            raise Unavailable(
                f"{collection.name} was filled by {collection.model_name} "
                f"{collection.model_version}, but {spec.version} is served"
            )

    async def warm_up(self) -> None:
        """Embed once, so that nobody's first query is slow; raises as `by_text`."""
        collection = await self.active()
        await self.check_model(collection)
        await asyncio.gather(
            *(self._embedder.embed_texts(collection.model_name, ["warm-up"]) for _ in range(2))
        )
