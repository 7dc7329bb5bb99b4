"""Shadow comparison: run the recorded searches again on a candidate before it becomes active.

The recorded answers are compared unchanged, so if the candidate finds images that were added since,
its overlap is lower.
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
    """One query: the newest answer of the active model compared with the candidate's."""

    query: str
    active: Sequence[str]
    candidate: Sequence[str]
    overlap: float
    rbo: float
    active_ndcg: float | None
    candidate_ndcg: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All queries, and their summary."""

    active_model: str
    candidate_model: str
    queries: Sequence[QueryComparison]
    active_scores: Mapping[str, float] = field(default_factory=dict)
    candidate_scores: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    """Recorded searches that cannot be run again: by image, by weighted terms, or with filters."""

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
    """Run the newest `limit` distinct text queries of the active model on the candidate.

    With `rated_only`, only queries with a rating above the lowest are compared.

    Raises:
        Unavailable: a required server does not answer.
    """
    searches, skipped = await _read_recorded(log, active)
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


async def _read_recorded(
    log: EventLog, active: Collection
) -> tuple[dict[str, SearchPerformed], int]:
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
    """Text -> image -> gain (rating - 1) / 9, the mean over all ratings of the image for that text.

    A rating of a whole answer counts for its top image.
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
    """Parse `overlap=0.3,ndcg_gain=0` into minimum values by name.

    Raises:
        ValueError: the text is not of that form, or a name is not in `GATES`.
    """
    gates = {}
    for part in text.split(","):
        match = GATE.fullmatch(part)
        if match is None or match[1] not in GATES:
            raise ValueError(f"{part!r} is not a gate: use NAME=NUMBER with {', '.join(GATES)}")
        gates[match[1]] = float(match[2])
    return gates


def refusals(comparison: Comparison, gates: Mapping[str, float]) -> list[str]:
    """Why the candidate fails the gates; empty if it passes. An unknown value fails its gate."""
    summary = comparison.summary()
    return [
        f"{name} is {'unknown' if summary[name] is None else f'{summary[name]:.3f}'}, "
        f"at least {minimum:g} is required"
        for name, minimum in gates.items()
        if summary[name] is None or summary[name] < minimum
    ]
