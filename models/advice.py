"""Whether the active model is rated well, and which loaded model would have scored higher.

The ratings of a time window are read from `feedback`. Only if their mean is low, the rated queries
are run on the other models, which costs an embedding and a search for each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any
from uuid import UUID

from adapters.embedder.port import Embedder
from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from models.comparison import WIN, compare
from models.settings import AdviceSettings
from schemas.codec import InvalidEvent, decode
from schemas.events import FeedbackGiven, ModelActivated, ModelStep, now
from schemas.topics import FEEDBACK, MODELS


@dataclass(frozen=True, slots=True)
class Advice:
    """The evaluation of the active model's ratings. `mean` is from 1 to 10, nDCG from 0 to 1."""

    model: str | None
    ratings: int
    mean: float | None
    threshold: float
    low: bool
    """The mean is below the threshold, and there are enough ratings."""
    candidate: str | None = None
    """The loaded model with the best nDCG on the rated queries, if better than the active one."""
    active_ndcg: float | None = None
    candidate_ndcg: float | None = None

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """The advice as one sentence for a terminal; empty if there is none."""
        if not self.low or self.mean is None:
            return ""
        finding = (
            f"ratings: {self.mean:.1f} of 10 on average for {self.model} "
            f"({self.ratings} ratings), below {self.threshold:g}"
        )
        if self.candidate is None or self.candidate_ndcg is None or self.active_ndcg is None:
            return f"{finding}; no loaded model would have done better"
        return (
            f"{finding}; {self.candidate} would have scored higher on the rated queries "
            f"(nDCG {self.candidate_ndcg:.2f}, now {self.active_ndcg:.2f}): "
            f"./image-search models switch {self.candidate}"
        )


async def advise(
    log: EventLog, embedder: Embedder, index: ImageIndex, settings: AdviceSettings
) -> Advice:
    """Evaluate the ratings that the active model received in the window.

    Raises:
        Unavailable: a required server does not answer.
    """
    active = await index.active()
    if active is None:
        return Advice(None, 0, None, settings.advice_threshold, low=False)
    since = now() - timedelta(seconds=settings.advice_window)
    ratings = await _ratings(log, active.model_name, since)
    mean = fmean(ratings) if ratings else None
    low = (
        mean is not None
        and len(ratings) >= settings.advice_ratings
        and mean < settings.advice_threshold
    )
    found = Advice(active.model_name, len(ratings), mean, settings.advice_threshold, low)
    return await _with_candidate(found, log, embedder, index, active) if low else found


async def _with_candidate(
    found: Advice, log: EventLog, embedder: Embedder, index: ImageIndex, active: Collection
) -> Advice:
    best = found
    for collection in await _candidates(log, embedder, active):
        result = await compare(log, embedder, index, active, collection, rated_only=True)
        summary = result.summary()
        mine, theirs = summary["active_ndcg"], summary["ndcg"]
        if mine is None or theirs is None or theirs - mine <= WIN:
            continue
        if best.candidate_ndcg is None or theirs > best.candidate_ndcg:
            best = Advice(
                found.model,
                found.ratings,
                found.mean,
                found.threshold,
                found.low,
                collection.model_name,
                mine,
                theirs,
            )
    return best


async def _ratings(log: EventLog, model_name: str, since: datetime) -> list[int]:
    newest: dict[tuple[UUID, str | None], int] = {}
    async for record in log.read_all(FEEDBACK, since):
        try:
            event = decode(FeedbackGiven, record.value)
        except InvalidEvent:
            continue
        if event.model_name == model_name and event.occurred_at >= since:
            # Of several ratings of one image for one search, the newest counts.
            newest[event.search_id, event.image_name] = event.rating
    return list(newest.values())


async def _candidates(log: EventLog, embedder: Embedder, active: Collection) -> list[Collection]:
    """The other collections whose model is loaded in the version that filled them, as recorded in
    the `models` topic."""
    steps: Mapping[str, ModelActivated] = await _steps(log)
    found = []
    for name, event in steps.items():
        if name == active.model_name or event.step is ModelStep.RETIRED:
            continue
        if not await embedder.is_ready(name):
            continue
        spec = await embedder.spec(name)
        if spec.version == event.model_version:
            found.append(Collection(event.collection, name, spec.version, spec.dimension))
    return found


async def _steps(log: EventLog) -> dict[str, ModelActivated]:
    """Model -> its newest event."""
    found: dict[str, ModelActivated] = {}
    async for record in log.read_all(MODELS):
        try:
            event = decode(ModelActivated, record.value)
        except InvalidEvent:
            continue
        known = found.get(event.model_name)
        if known is None or known.occurred_at <= event.occurred_at:
            found[event.model_name] = event
    return found
