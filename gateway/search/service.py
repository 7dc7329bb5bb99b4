"""Answering a search: resolve the active collection, embed with its model, search it by name."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from adapters.errors import Rejected, Unavailable
from adapters.index.port import EVERYTHING, Collection, ImageFilter, ImageIndex, Match
from adapters.retry import until_available
from gateway.auth.cursors import Cursors, fingerprint
from gateway.auth.privacy import Privacy
from gateway.search import cutoff, ranking
from gateway.search.collapse import CollapsedMatch, collapse
from gateway.search.cutoff import BackgroundSample
from gateway.search.events import SearchEvents
from gateway.search.image_lookup import ImageLookup
from gateway.search.outage import OutageRetry
from gateway.search.query import QueryEmbedder, QueryVector, Term, describe, kind_of
from schemas.events import SearchKind, SearchPerformed, SearchResult, SearchTimings, now

logger = logging.getLogger(__name__)

ALIAS_SECONDS = 1.0
"""How long a resolved alias is used. A switch keeps the old collection, so searches in it work."""

WARM_SECONDS = 5.0
"""Interval of checks whether another collection was activated."""


@dataclass(frozen=True, slots=True)
class Question:
    """One search, with the fields of `gateway.http.api_models.SearchRequest`."""

    terms: Sequence[Term]
    limit: int = 10
    min_score: float | None = None
    where: ImageFilter = EVERYTHING
    recorded_filters: dict[str, str | int | float | bool] = field(default_factory=dict)
    """The filters as the search event records them."""
    details: Sequence[str] = ()
    automatic_cut_off: bool = False
    collapse: bool = False
    paged: bool = False
    cursor: str | None = None

    def fingerprint(self, collection: Collection) -> str:
        """A digest that is equal for all pages of this search, and differs for other searches."""
        terms: list[tuple[Any, ...]] = [
            (
                term.weight,
                term.text,
                term.image_id,
                term.image and hashlib.sha256(term.image).hexdigest(),
            )
            for term in self.terms
        ]
        return fingerprint(
            collection.name,
            terms,
            self.min_score,
            self.recorded_filters,
            self.automatic_cut_off,
            self.collapse,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The query in its short form, the collection that was searched, and the matches."""

    search_id: UUID
    query: str
    collection: Collection
    matches: Sequence[CollapsedMatch]
    cut_off_score: float | None = None
    next_cursor: str | None = None


class Search:
    """Finds matches for queries; query and collection belong to the same model version."""

    def __init__(
        self,
        queries: QueryEmbedder,
        index: ImageIndex,
        events: SearchEvents,
        cursors: Cursors,
        privacy: Privacy,
        *,
        duplicate_score: float,
        patience: float,
    ) -> None:
        """`duplicate_score` is the cosine from which two images are near-duplicates.

        `patience` is how many seconds to wait for a server that is down; see `OutageRetry`.
        """
        self._queries = queries
        self._index = index
        self._events = events
        self._cursors = cursors
        self._privacy = privacy
        self._duplicate_score = duplicate_score
        self._outage_retry = OutageRetry(patience)
        self._background = BackgroundSample(index)
        self.image_lookup = ImageLookup(index, self.active)
        """Which images searches can find."""
        self._active: tuple[float, Collection] | None = None
        self._resolving = asyncio.Lock()
        self._warm_for: str | None = None

    async def answer(self, question: Question, client: str | None = None) -> Answer:
        """One page of the nearest images, best first; recorded under this client's name.

        An image that is itself a term of positive weight is left out of the matches.

        Raises:
            InvalidField: a term or the cursor cannot be used.
            Unavailable: a server has been down for longer than `patience`.
        """
        started = time.perf_counter()

        async def attempt() -> tuple[Collection, int, float, _Matches]:
            # Each attempt starts again, as another model may have been activated.
            collection = await self.active()
            start = self._page_start(question, collection)
            query = await self._queries.embed(collection, question.terms)
            embedded = time.perf_counter()
            found = await self._find_matches(question, collection, query, start + question.limit)
            return collection, start, embedded, found

        collection, start, embedded, found = await self._outage_retry(attempt)
        ended = time.perf_counter()
        page = found.matches[start : start + question.limit]
        next_start = start + question.limit
        answer = Answer(
            uuid4(),
            describe(question.terms),
            collection,
            page,
            found.cut_off_score,
            self._cursors.sign(question.fingerprint(collection), next_start)
            if question.paged and len(found.matches) > next_start
            else None,
        )
        timings = SearchTimings(
            embed=(embedded - started) * 1e3,
            query=(ended - embedded) * 1e3,
            total=(ended - started) * 1e3,
        )
        # The event is built after the answer has been returned.
        occurred_at = now()
        asyncio.get_running_loop().call_soon(
            lambda: self._events.add(
                self._privacy.recorded(
                    _search_event(question, answer, start, timings, occurred_at), client
                )
            )
        )
        return answer

    def _page_start(self, question: Question, collection: Collection) -> int:
        if question.cursor is None:
            return 0
        return int(self._cursors.check(question.cursor, question.fingerprint(collection)))

    async def _find_matches(
        self, question: Question, collection: Collection, query: QueryVector, needed: int
    ) -> _Matches:
        vector, own = query.vector, query.own
        search = functools.partial(
            self._index.search,
            collection,
            vector,
            where=question.where,
            details=question.details,
            with_vectors=question.collapse,
        )
        least: float | None = question.min_score
        automatic: float | None = None

        async def clean(order: Sequence[Match]) -> list[CollapsedMatch]:
            nonlocal least, automatic
            others = [match for match in order if match.image_id not in own]
            if question.automatic_cut_off and automatic is None and others:
                automatic = await self._cut_off(question, collection, vector, others[0].score)
                least = automatic if least is None else max(least, automatic)
            wanted = [match for match in others if least is None or match.score >= least]
            if question.collapse:
                return await collapse(wanted, self._duplicate_score)
            return [CollapsedMatch(match) for match in wanted]

        if question.paged or question.collapse:
            tiers = ranking.COLLAPSING_TIERS if question.collapse else ranking.TIERS
            matches = await ranking.rank(search, clean, needed=needed + 1, tiers=tiers)
        else:
            matches = await clean(await search(needed + len(own)))
        return _Matches(matches, automatic)

    async def _cut_off(
        self, question: Question, collection: Collection, vector: Sequence[float], best: float
    ) -> float:
        spec = await self._queries.check_model(collection)
        background = await self._background.scores(collection, vector)
        return cutoff.cut_off_score(
            best, background, spec.min_score if len(question.terms) == 1 else -1.0
        )

    async def active(self) -> Collection:
        """The collection that answers searches now.

        Raises:
            Unavailable: Weaviate does not answer, or no collection is active yet.
        """
        # One of the concurrent callers queries the index; the others use its answer.
        async with self._resolving:
            if self._active is not None and time.monotonic() - self._active[0] < ALIAS_SECONDS:
                return self._active[1]
            collection = await self._index.active()
            if collection is None:
                raise Unavailable("no collection is active yet")
            self._active = (time.monotonic(), collection)
            return collection

    async def warm_up(self) -> None:
        """Run a query, so that the next one is not slowed by first use; raises as `answer`."""
        collection = await self.active()
        if self._warm_for != collection.name:
            vector = await self._queries.warm_up(collection)
            await self._index.search(collection, vector, 1)
            self._warm_for = collection.name

    @property
    def warm(self) -> bool:
        """Whether the models were warmed up since the start."""
        return self._warm_for is not None

    async def keep_warm(self) -> None:
        """Warm up, now and after each change of the active collection, until cancelled."""
        while True:
            try:
                await until_available(self.warm_up, what="warm-up")
            except Rejected:
                logger.exception("the model cannot be warmed up")
            await asyncio.sleep(WARM_SECONDS)


@dataclass(frozen=True, slots=True)
class _Matches:
    """The matches of all pages up to and including the requested one."""

    matches: list[CollapsedMatch]
    cut_off_score: float | None


def _search_event(
    question: Question,
    answer: Answer,
    start: int,
    timings: SearchTimings,
    occurred_at: datetime,
) -> SearchPerformed:
    kind = kind_of(question.terms)
    filters = dict(question.recorded_filters)
    if question.min_score is not None:
        filters["min_score"] = question.min_score
    if question.automatic_cut_off:
        filters["cut_off"] = "auto"
    if question.collapse:
        filters["collapse_duplicates"] = True
    if start:
        filters["start"] = start
    return SearchPerformed(
        occurred_at=occurred_at,
        search_id=answer.search_id,
        kind=kind,
        text=None if kind is SearchKind.IMAGE else answer.query,
        limit=question.limit,
        filters=filters,
        model_name=answer.collection.model_name,
        model_version=answer.collection.model_version,
        collection=answer.collection.name,
        results=tuple(
            SearchResult(image_name=each.match.image_id, score=each.match.score)
            for each in answer.matches
        ),
        latency_ms=timings,
    )
