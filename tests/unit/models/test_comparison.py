"""Numbers that compare rankings, and the comparison of two models."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from cli.models_compare import as_page
from models.comparison import compare, parse_gates, refusals
from models.rank_metrics import ndcg, overlap, quantiles, rank_biased_overlap
from schemas.events import (
    FeedbackGiven,
    SearchKind,
    SearchPerformed,
    SearchResult,
    SearchTimings,
)
from schemas.topics import FEEDBACK, SEARCHES

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
rankings = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12)


def by_definition(left: Sequence[str], right: Sequence[str], p: float) -> float:
    """RBO of two rankings that repeat their agreement for ever, summed a long way."""
    return sum(
        (1 - p) * p ** (d - 1) * len(set(left[:d]) & set(right[:d])) / d
        for d in range(1, len(left) + 1)
    )


@pytest.mark.slow
@given(rankings, rankings)
def test_rbo_is_symmetric_bounded_and_one_only_for_equal_sets(
    left: list[str], right: list[str]
) -> None:
    value = rank_biased_overlap(left, right)
    assert value == pytest.approx(rank_biased_overlap(right, left))
    assert -1e-9 <= value <= 1 + 1e-9
    assert rank_biased_overlap(left, left) == pytest.approx(1.0)
    if not set(left) & set(right) and (left or right):
        assert value == 0


def test_rbo_against_values_worked_out_by_hand() -> None:
    # Depth 1: 0 of 1, depth 2: 2 of 2; p = 0.9: (0.1/0.9)(0 + 0.81) + 1 * 0.81.
    assert rank_biased_overlap("ab", "ba", 0.9) == pytest.approx(0.09 + 0.81)
    # A prefix of the other: agreement stays 1 by extrapolation.
    assert rank_biased_overlap("ab", "abcd", 0.9) == pytest.approx(1.0)
    # Same length: the sum of the definition plus the extrapolated rest X_k/k p^k.
    left, right = "abcdef", "bacxef"
    rest = len(set(left) & set(right)) / 6 * 0.8**6
    assert rank_biased_overlap(left, right, 0.8) == pytest.approx(
        by_definition(left, right, 0.8) + rest
    )
    with pytest.raises(ValueError, match="persistence"):
        rank_biased_overlap("a", "b", 1.0)


def test_overlap() -> None:
    assert overlap("abcd", "cdef") == 0.5
    assert overlap("ab", "ba") == 1
    assert overlap("", "") == 1
    assert overlap("", "a") == 0
    assert overlap("abc", "axy", depth=1) == 1


def test_ndcg() -> None:
    assert ndcg("ab", {"a": 1.0, "b": 0.5}) == 1
    swapped = ndcg("ba", {"a": 1.0, "b": 0.5})
    assert swapped == pytest.approx((0.5 + 1 / 1.5849625) / (1 + 0.5 / 1.5849625), abs=1e-6)
    assert ndcg("ab", {}) is None
    assert ndcg("xy", {"a": 1.0}) == 0


def test_quantiles() -> None:
    assert quantiles([3, 1, 2]) == {"min": 1, "q1": 1.5, "median": 2, "q3": 2.5, "max": 3}
    assert quantiles([]) == {}


def model(name: str, dimension: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        version="0123456789ab",
        dimension=dimension,
        width=4,
        height=4,
        resize_mode="stretch",
        licence="MIT",
    )


def searched(
    collection: Collection, text: str | None, names: Sequence[str], **more: Any
) -> Message:
    event = SearchPerformed(
        search_id=uuid4(),
        kind=SearchKind.TEXT,
        text=text,
        limit=3,
        model_name=collection.model_name,
        model_version=collection.model_version,
        collection=collection.name,
        results=tuple(SearchResult(image_name=name, score=0.5) for name in names),
        latency_ms=SearchTimings(embed=1, query=1, total=2),
    ).model_copy(update=more)
    return Message(str(event.search_id), event)


def rated(text: str, name: str, rating: int) -> Message:
    event = FeedbackGiven(
        search_id=uuid4(),
        rating=rating,
        image_name=name,
        text=text,
        model_name="old",
        searched_at=WHEN,
    )
    return Message(str(event.search_id), event)


async def test_two_models_are_compared_on_logged_searches() -> None:
    log, index = FakeEventLog(), FakeImageIndex()
    embedder = FakeEmbedder(served={"old": model("old", 8), "new": model("new", 6)})
    old = await index.ensure_collection(embedder.served["old"])
    new = await index.ensure_collection(embedder.served["new"])
    (vector,) = await embedder.embed_texts("new", ["cats"])
    for position, name in enumerate(("c", "b", "a")):
        moved = vector.copy()
        moved[0] += position * 0.5
        record = ImageRecord(
            image_id=name,
            uri="file:///x",
            sha256="a" * 64,
            media_type="image/png",
            size_bytes=1,
            width=1,
            height=1,
            modified_at=WHEN,
            added_at=WHEN,
            vector=moved.tolist(),
        )
        await index.upsert(new, [record])
    await log.publish(
        SEARCHES,
        [
            searched(old, "cats", ["x"], occurred_at=WHEN),
            searched(old, "cats", ["a", "b"]),
            searched(old, "a picture", ["a"], kind=SearchKind.IMAGE),
            searched(old, None, ["b"]),  # LOG_TEXTS=false
            searched(new, "dogs", ["a"]),
        ],
    )
    await log.publish(FEEDBACK, [rated("cats", "c", 10), rated("cats", "a", 1)])
    result = await compare(log, embedder, index, old, new)
    summary = result.summary()
    assert (summary["queries"], summary["skipped"], summary["rated"]) == (1, 2, 1)
    (query,) = result.queries
    assert set(query.candidate) == {"a", "b", "c"}
    assert query.active == ["a", "b"]
    assert query.overlap == pytest.approx(2 / 3)
    assert query.active_ndcg == 0
    assert query.candidate_ndcg is not None
    assert (summary["wins"], summary["losses"]) == (1, 0)
    assert refusals(result, {"overlap": 0.5}) == []
    assert refusals(result, {"overlap": 0.9, "rbo": 0.0})[0].startswith("overlap is 0.667")
    page = as_page(result, "http://gateway")
    assert "http://gateway/images/c" in page
    assert "<h2>cats</h2>" in page


async def test_unknown_values_pass_no_gate() -> None:
    log, index = FakeEventLog(), FakeImageIndex()
    embedder = FakeEmbedder(served={"old": model("old", 8), "new": model("new", 6)})
    old = await index.ensure_collection(embedder.served["old"])
    new = await index.ensure_collection(embedder.served["new"])
    result = await compare(log, embedder, index, old, new)
    assert refusals(result, {"overlap": 0.0}) == ["overlap is unknown, at least 0 is required"]
    assert refusals(result, {}) == []


def test_gates() -> None:
    assert parse_gates("overlap=0.3, ndcg_gain=-0.1") == {"overlap": 0.3, "ndcg_gain": -0.1}
    for wrong in ("overlap", "speed=1", "overlap=much", ""):
        with pytest.raises(ValueError, match="not a gate"):
            parse_gates(wrong)
