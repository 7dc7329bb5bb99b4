"""Answering a search: resolve the active collection, embed with its model, search it by name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from adapters.errors import Unavailable
from adapters.ports import Collection, ImageIndex, Match
from gateway.events import SearchEvents
from gateway.query import QueryEmbedder, Term, describe, kind_of
from schemas.events import SearchKind, SearchPerformed, SearchResult, SearchTimings, now

ALIAS_SECONDS = 1.0
"""How long a resolved alias is trusted. A flip keeps the old collection, so nothing breaks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, in short form, and what it found, and where."""

    search_id: UUID
    query: str
    collection: Collection
    matches: Sequence[Match]


class Search:
    """Queries to matches. Query and collection always belong to the same model version."""

    def __init__(self, queries: QueryEmbedder, index: ImageIndex, events: SearchEvents) -> None:
        self._queries = queries
        self._index = index
        self._events = events
        self._active: tuple[float, Collection] | None = None

    async def answer(
        self, terms: Sequence[Term], *, limit: int, min_score: float | None = None
    ) -> Answer:
        """The `limit` nearest pictures of at least `min_score`, best first.

        A picture that is itself a term of positive weight is left out: it would only find itself.

        Raises:
            BadTerm: a term cannot be used.
            Unavailable: a server that is needed does not answer.
        """
        started = time.perf_counter()
        collection = await self.active()
        vector = await self._queries.embed(collection, terms)
        embedded = time.perf_counter()
        own = {term.image_name for term in terms if term.image_name and term.weight > 0}
        found = await self._index.search(collection, vector, limit + len(own))
        ended = time.perf_counter()
        matches = [
            match
            for match in found
            if match.image_id not in own and (min_score is None or match.score >= min_score)
        ][:limit]
        answer = Answer(uuid4(), describe(terms), collection, matches)
        kind = kind_of(terms)
        self._events.add(
            SearchPerformed(
                occurred_at=now(),
                search_id=answer.search_id,
                kind=kind,
                text=None if kind is SearchKind.IMAGE else answer.query,
                limit=limit,
                filters={} if min_score is None else {"min_score": min_score},
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

    async def warm_up(self) -> None:
        """Make the first query as fast as the next; raises as `answer`."""
        await self._queries.warm_up(await self.active())
