"""Judgments, exports and metrics, on answers whose metrics can be worked out by hand."""

import json
import math
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import ir_measures
import pytest

from adapters.log.port import Message
from analytics.judgments import grade, metrics, query_id, write_trec, write_ubi
from analytics.lake import Lake, LakePartition, PartitionEnd
from analytics.views import EventFilters
from models.rank_metrics import ndcg
from schemas.events import (
    FeedbackGiven,
    SearchKind,
    SearchPerformed,
    SearchResult,
    SearchTimings,
)
from tests.support.lake_events import BEGIN, records, topic_of

ANSWERS = [
    # (text, model, names best first)
    ("A red car ", "lite", ["a.jpg", "b c.jpg", "d.jpg"]),
    ("tennis", "lite", ["x.jpg", "y.jpg"]),
    ("a red car", "clip", ["d.jpg", "a.jpg"]),
    ("never rated", "clip", ["x.jpg"]),
]
RATINGS = [
    # (search, picture, rating)
    (0, "a.jpg", 10),
    (0, "b c.jpg", 3),
    (2, "d.jpg", 8),
    (2, "d.jpg", 2),
    (1, "y.jpg", 7),
    (1, None, 9),
]


def search(number: int) -> SearchPerformed:
    text, model, names = ANSWERS[number]
    return SearchPerformed(
        search_id=UUID(int=number),
        occurred_at=BEGIN + timedelta(minutes=number),
        kind=SearchKind.TEXT,
        text=text,
        limit=10,
        model_name=model,
        model_version="1",
        collection="c",
        results=tuple(
            SearchResult(image_name=name, score=0.9 - 0.1 * position)
            for position, name in enumerate(names)
        ),
        latency_ms=SearchTimings(embed=1, query=2, total=3),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    searches = [search(number) for number in range(len(ANSWERS))]
    ratings = [
        FeedbackGiven(
            search_id=UUID(int=number),
            occurred_at=BEGIN + timedelta(hours=1, minutes=position),
            rating=rating,
            image_name=name,
            text=ANSWERS[number][0],
            model_name=ANSWERS[number][1],
            searched_at=BEGIN,
        )
        for position, (number, name, rating) in enumerate(RATINGS)
    ]
    for topic, events in (("searches", searches), ("feedback", ratings)):
        messages = [Message(str(event.search_id), event) for event in events]
        lake.current().append(
            topic_of(topic), LakePartition(topic, 0), PartitionEnd(), records(messages)
        )
    return lake


def test_each_rating_has_its_grade() -> None:
    assert [grade(rating) for rating in range(1, 11)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.slow
def test_qrels_are_what_was_rated_last(lake: Lake, tmp_path: Path) -> None:
    write_trec(lake, tmp_path / "out")
    car, tennis = query_id("a red car"), query_id("tennis")
    lines = (tmp_path / "out" / "qrels.txt").read_text().splitlines()
    assert sorted(lines) == sorted(
        [f"{car} 0 a.jpg 3", f"{car} 0 b%20c.jpg 0", f"{car} 0 d.jpg 0", f"{tennis} 0 y.jpg 2"]
    )
    queries = (tmp_path / "out" / "queries.tsv").read_text().splitlines()
    assert f"{car}\ta red car" in queries
    assert len(queries) == 3


@pytest.mark.slow
def test_the_files_are_read_by_other_tools(lake: Lake, tmp_path: Path) -> None:
    counts = write_trec(lake, tmp_path)
    assert {path.name for path in counts} == {
        "qrels.txt",
        "queries.tsv",
        "run-lite.txt",
        "run-clip.txt",
    }
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")))  # type: ignore[no-untyped-call]
    run = list(ir_measures.read_trec_run(str(tmp_path / "run-lite.txt")))  # type: ignore[no-untyped-call]
    assert len(qrels) == 4
    assert len(run) == 5
    measure = ir_measures.RR(rel=2)
    assert ir_measures.calc_aggregate([measure], qrels, run)[measure] == pytest.approx(0.75)


@pytest.mark.slow
def test_metrics_by_hand(lake: Lake) -> None:
    found = metrics(lake)
    # lite: "a red car" finds its grade 3 first; "tennis" its grade 2 second.
    assert found["lite"]["queries"] == 2
    assert found["lite"]["nDCG@10"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert found["lite"]["RR(rel=2)@10"] == pytest.approx(0.75)
    assert found["lite"]["P(rel=2)@5"] == pytest.approx(0.2)
    # clip: the irrelevant one first.
    assert found["clip"]["queries"] == 1
    assert found["clip"]["nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert found["clip"]["RR(rel=2)@10"] == pytest.approx(0.5)


@pytest.mark.slow
def test_there_is_no_metric_without_ratings(lake: Lake) -> None:
    assert metrics(lake, EventFilters(since=BEGIN + timedelta(days=3))) == {}


@pytest.mark.slow
def test_ubi_links_events_to_queries(lake: Lake, tmp_path: Path) -> None:
    write_ubi(lake, tmp_path)
    queries = [
        json.loads(line) for line in (tmp_path / "ubi_queries.ndjson").read_text().splitlines()
    ]
    events = [
        json.loads(line) for line in (tmp_path / "ubi_events.ndjson").read_text().splitlines()
    ]
    by_id = {found["query_id"]: found for found in queries}
    assert len(by_id) == len(ANSWERS)
    assert len(events) == 5, "a later rating replaces the earlier one"
    for event in events:
        requested = by_id[event["query_id"]]
        assert event["user_query"] == requested["user_query"]
        assert event["action_name"] == "rate"
        if "object" in event["event_attributes"]:
            name = event["event_attributes"]["object"]["object_id"]
            position = event["event_attributes"]["position"]["ordinal"]
            assert requested["query_response_hit_ids"][position - 1] == name
    assert queries[0]["timestamp"] == "2026-01-05T06:00:00.000+00:00"


def test_ndcg_of_judgments_and_of_model_comparisons_agree() -> None:
    """trec_eval takes whole grades only, and comparisons have mean gains: hence two functions."""
    gains = {"a": 3, "b": 0, "c": 2, "e": 1, "f": 3}
    ranking = ["b", "a", "d", "c", "g", "e"]
    judged = [ir_measures.Qrel("q", name, gain) for name, gain in gains.items()]
    run = [ir_measures.ScoredDoc("q", name, -rank) for rank, name in enumerate(ranking)]
    ours = ndcg(ranking, gains, depth=10)
    (theirs,) = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], judged, run).values()
    assert ours == pytest.approx(theirs)
