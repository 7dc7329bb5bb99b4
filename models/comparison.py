"""Shadow comparison: the recorded searches are run again with a candidate, before it is active.

Recorded answers are compared as they were given, so images that were added since then count against
the overlap of a candidate that finds them; `limit` bounds how many searches are compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any
from uuid import UUID

from adapters.embedder.port import Embedder
from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from models.rank_metrics import ndcg, overlap, quantiles, rank_biased_overlap
from schemas.codec import InvalidEvent, decode
from schemas.events import FeedbackGiven, SearchKind, SearchPerformed
from schemas.topics import FEEDBACK, SEARCHES

DEPTH = 10
WIN = 0.01
"""nDCG differences below this are a draw."""


@dataclass(frozen=True, slots=True)
class QueryComparison:
    """One query, newest answer of the active model against the candidate's."""

    query: str
    active: Sequence[str]
    candidate: Sequence[str]
    overlap: float
    rbo: float
    active_ndcg: float | None
    candidate_ndcg: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All queries, and what they come to."""

    active_model: str
    candidate_model: str
    queries: Sequence[QueryComparison]
    active_scores: Mapping[str, float] = field(default_factory=dict)
    candidate_scores: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    """Recorded searches that cannot be asked again: pictures and weighted terms."""

    def summary(self) -> dict[str, Any]:
        """The means that `--gate` refers to, and counts."""
        rated = [q for q in self.queries if q.active_ndcg is not None]
        gains = [(q.candidate_ndcg or 0.0) - (q.active_ndcg or 0.0) for q in rated]
        return {
            "active": self.active_model,
            "candidate": self.candidate_model,
            "queries": len(self.queries),
            "skipped": self.skipped,
            "overlap": _mean([q.overlap for q in self.queries]),
            "rbo": _mean([q.rbo for q in self.queries]),
            "rated": len(rated),
            "active_ndcg": _mean([q.active_ndcg or 0.0 for q in rated]),
            "ndcg": _mean([q.candidate_ndcg or 0.0 for q in rated]),
            "ndcg_gain": _mean(gains),
            "wins": sum(gain > WIN for gain in gains),
            "losses": sum(gain < -WIN for gain in gains),
            "active_scores": self.active_scores,
            "candidate_scores": self.candidate_scores,
        }

    def as_json(self) -> dict[str, Any]:
        """The summary and each query."""
        return {**self.summary(), "per_query": [asdict(query) for query in self.queries]}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


async def compare(
    log: EventLog,
    embedder: Embedder,
    index: ImageIndex,
    active: Collection,
    candidate: Collection,
    *,
    limit: int = 500,
    rated_only: bool = False,
) -> Comparison:
    """Run the newest `limit` different text queries of the active model on the candidate.

    With `rated_only`, only queries with a rating above the lowest are compared.

    Raises:
        Unavailable: a server that is needed does not answer.
    """
    searches, skipped = await _recorded(log, active)
    gains = await _gains(log)
    newest = [
        search
        for text, search in searches.items()
        if not rated_only or any(gains.get(text, {}).values())
    ][-limit:]
    queries, scores = [], []
    for recorded in newest:
        text = recorded.text or ""
        (vector,) = await embedder.embed_texts(candidate.model_name, [text])
        found = await index.search(candidate, vector.tolist(), max(DEPTH, recorded.limit))
        scores += [match.score for match in found[:DEPTH]]
        before = [result.image_name for result in recorded.results]
        after = [match.image_id for match in found[: recorded.limit]]
        rated = gains.get(text, {})
        queries.append(
            QueryComparison(
                query=text,
                active=before[:DEPTH],
                candidate=after[:DEPTH],
                overlap=overlap(before, after, DEPTH),
                rbo=rank_biased_overlap(before, after),
                active_ndcg=ndcg(before, rated, DEPTH),
                candidate_ndcg=ndcg(after, rated, DEPTH),
            )
        )
    return Comparison(
        active.model_name,
        candidate.model_name,
        queries,
        quantiles([r.score for search in newest for r in search.results[:DEPTH]]),
        quantiles(scores),
        skipped,
    )


async def _recorded(log: EventLog, active: Collection) -> tuple[dict[str, SearchPerformed], int]:
    """Text -> its newest search in the active collection, oldest first; and the number skipped."""
    found: list[SearchPerformed] = []
    skipped = 0
    async for record in log.read_all(SEARCHES):
        try:
            event = decode(SearchPerformed, record.value)
        except InvalidEvent:
            skipped += 1
            continue
        if event.collection != active.name:
            continue
        if event.kind is SearchKind.TEXT and event.text and not event.filters:
            found.append(event)
        else:
            skipped += 1
    by_text: dict[str, SearchPerformed] = {}
    for event in sorted(found, key=lambda each: each.occurred_at):
        by_text.pop(event.text or "", None)
        by_text[event.text or ""] = event
    return by_text, skipped


async def _gains(log: EventLog) -> dict[str, dict[str, float]]:
    """Text -> image -> gain (rating - 1) / 9, the mean over all ratings of it for that text.

    A rating of a whole answer is one of its top image.
    """
    ratings: dict[tuple[UUID, str | None], FeedbackGiven] = {}
    async for record in log.read_all(FEEDBACK):
        try:
            event = decode(FeedbackGiven, record.value)
        except InvalidEvent:
            continue
        # Of several ratings of one image for one search, the newest counts.
        ratings[event.search_id, event.image_name] = event
    by_text: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in ratings.values():
        name = event.image_name or event.top_image
        if event.text and name:
            by_text[event.text][name].append((event.rating - 1) / 9)
    return {
        text: {name: fmean(values) for name, values in rated.items()}
        for text, rated in by_text.items()
    }


GATE = re.compile(r"\s*([a-z_]+)\s*=\s*(-?\d+(?:\.\d+)?)\s*")
GATES = ("overlap", "rbo", "ndcg", "ndcg_gain", "queries", "rated")


def parse_gates(text: str) -> dict[str, float]:
    """`overlap=0.3,ndcg_gain=0` -> least values by name.

    Raises:
        ValueError: it is not of that form, or names no number that a comparison has.
    """
    gates = {}
    for part in text.split(","):
        match = GATE.fullmatch(part)
        if match is None or match[1] not in GATES:
            raise ValueError(f"{part!r} is no gate: use NAME=NUMBER with {', '.join(GATES)}")
        gates[match[1]] = float(match[2])
    return gates


def refusals(comparison: Comparison, gates: Mapping[str, float]) -> list[str]:
    """Why the candidate may not take over; empty where it may. What is unknown does not pass."""
    summary = comparison.summary()
    return [
        f"{name} is {'unknown' if summary[name] is None else f'{summary[name]:.3f}'}, "
        f"at least {least:g} is wanted"
        for name, least in gates.items()
        if summary[name] is None or summary[name] < least
    ]
