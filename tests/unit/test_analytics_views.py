"""Every view against a plain recomputation from the events."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from adapters.errors import Unavailable
from adapters.event_log import LogRecord, Message
from analytics.compaction import compact
from analytics.lake import End, Lake, Place
from analytics.views import SQL, Filters, query, views
from schemas.events import (
    DeadLetter,
    FeedbackGiven,
    ImageIndexed,
    ModelActivated,
    SearchPerformed,
)
from tests.lake_events import BEGIN, Events, records, topic_of

FILTERS = [
    Filters(),
    Filters(model="clip"),
    Filters(since=BEGIN + timedelta(days=9), until=BEGIN + timedelta(days=25)),
    Filters(since=BEGIN + timedelta(days=9), model="lite"),
]


class World:
    """A lake, and the events in it, in the order of their offsets."""

    def __init__(self, url: str) -> None:
        self.lake = Lake(url)
        events = Events(11)
        made: dict[str, list[Any]] = {}
        for name, count in (
            ("searches", 1500),
            ("feedback", 1200),
            ("images.indexed", 800),
            ("images.dlq", 60),
            ("models", 4),
        ):
            messages: list[Message] = events.messages(name, count)
            made[name] = [message.event for message in messages]
            self.file(name, messages)
        self.searches: list[SearchPerformed] = made["searches"]
        self.given: list[FeedbackGiven] = made["feedback"]
        self.indexed: list[ImageIndexed] = made["images.indexed"]
        self.letters: list[DeadLetter] = made["images.dlq"]
        self.models: list[ModelActivated] = made["models"]
        last = {(f.search_id, f.image_name): f for f in self.given}
        self.feedback = list(last.values())
        self.by_id = {search.search_id: search for search in self.searches}

    def file(self, name: str, messages: list[Message]) -> None:
        """In three parts, the middle one compacted away, and one record that is no event."""
        rows = records(messages)
        bad = rows[-1].position
        rows.append(LogRecord(type(bad)(0, bad.offset + 1), b"k", b"no event", 0))
        place, end, third = Place(name, 0), End(), len(rows) // 3
        for part in (rows[:third], rows[third : 2 * third], rows[2 * third :]):
            end = self.lake.current().append(topic_of(name), place, end, part)
        compact(self.lake.current(), name, min_files=2)

    def kept(self, events: Iterable[Any], filters: Filters) -> list[Any]:
        return [
            event
            for event in events
            if (filters.since is None or event.occurred_at >= filters.since)
            and (filters.until is None or event.occurred_at < filters.until)
            and (filters.model is None or event.model_name in (filters.model, None))
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(params=FILTERS, ids=["all", "model", "period", "both"])
def filters(request: pytest.FixtureRequest) -> Filters:
    found: Filters = request.param
    return found


def close(found: Any, wanted: Any) -> bool:
    if wanted is None or found is None or isinstance(wanted, str | datetime):
        return bool(found == wanted)
    return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)


def same(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Equal up to rounding, in the same order."""
    assert len(rows) == len(wanted)
    for row, expected in zip(rows, wanted, strict=True):
        for name, value in expected.items():
            assert close(row[name], value), (name, row, expected)


def naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def interval(values: list[int]) -> tuple[float | None, float | None]:
    """A mean's 95 % confidence interval, with SciPy's quantile."""
    if len(values) < 2:
        return None, None
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def near(found: float | None, wanted: float | None) -> bool:
    if wanted is None or found is None:
        return found is wanted
    return math.isclose(found, wanted, rel_tol=2e-3, abs_tol=2e-3)


def top(search: SearchPerformed) -> float | None:
    return search.results[0].score if search.results else None


def test_every_view_is_tested_here() -> None:
    import re

    defined = set(re.findall(r"VIEW (\w+) AS", SQL.read_text()))
    source = Path(__file__).read_text()
    assert {name for name in defined if f'"FROM {name}' not in source} == set()


def test_base_views_hold_the_events(world: World, filters: Filters) -> None:
    wanted: tuple[tuple[str, Iterable[Any]], ...] = (
        ("FROM searches", world.searches),
        ("FROM feedback", world.feedback),
        ("FROM images_indexed", world.indexed),
        ("FROM dead_letters", world.letters),
    )
    for sql, events in wanted:
        found = {row["event_id"]: row["occurred_at"] for row in query(world.lake, sql, filters)}
        assert found == {
            str(event.event_id): naive(event.occurred_at) for event in world.kept(events, filters)
        }
    for sql, count in (
        ("FROM all_searches", len(world.searches)),
        ("FROM all_feedback", len(world.feedback)),
        ("FROM models", len(world.models)),
    ):
        assert len(query(world.lake, sql, filters)) == count


def test_totals(world: World, filters: Filters) -> None:
    searches = world.kept(world.searches, filters)
    ratings = [f.rating for f in world.kept(world.feedback, filters)]
    wanted = {
        "searches": len(searches),
        "without_result": sum(not s.results for s in searches),
        "latency_p95_ms": float(np.percentile([s.latency_ms.total for s in searches], 95)),
        "ratings": len(ratings),
        "mean_rating": statistics.mean(ratings),
        "index_changes": len(world.kept(world.indexed, filters)),
        "dead_letters": len(world.kept(world.letters, filters)),
    }
    same(query(world.lake, "FROM totals", filters), [wanted])


def test_searches_over_time(world: World, filters: Filters) -> None:
    hours: dict[datetime, list[SearchPerformed]] = defaultdict(list)
    for search in world.kept(world.searches, filters):
        hours[naive(search.occurred_at).replace(minute=0, second=0, microsecond=0)].append(search)
    wanted = []
    for hour, found in sorted(hours.items()):
        scores = [score for search in found if (score := top(search)) is not None]
        wanted.append(
            {
                "bucket": hour,
                "searches": len(found),
                "without_result": sum(not search.results for search in found),
                "mean_top_score": statistics.mean(scores) if scores else None,
                "latency_p95_ms": float(np.percentile([s.latency_ms.total for s in found], 95)),
            }
        )
    same(query(world.lake, "FROM searches_over_time", filters), wanted)


def test_latency_by_stage(world: World, filters: Filters) -> None:
    searches = world.kept(world.searches, filters)
    wanted = []
    for stage in ("embed", "query", "total"):
        times = [getattr(search.latency_ms, stage) for search in searches]
        p50, p90, p95, p99 = np.percentile(times, [50, 90, 95, 99]).tolist()
        wanted.append(
            {"stage": stage, "searches": len(times), "p50_ms": p50, "p90_ms": p90}
            | {"p95_ms": p95, "p99_ms": p99, "max_ms": max(times)}
        )
    same(query(world.lake, "FROM latency_by_stage", filters), wanted)


def test_weak_queries(world: World, filters: Filters) -> None:
    groups: dict[tuple[str | None, str], list[SearchPerformed]] = defaultdict(list)
    for search in world.kept(world.searches, filters):
        score = top(search)
        if score is None or score < 0.2:
            groups[search.text, str(search.kind)].append(search)
    found = {
        (row["text"], row["kind"]): row for row in query(world.lake, "FROM weak_queries", filters)
    }
    assert set(found) == set(groups)
    for key, searches in groups.items():
        scores = [score for search in searches if (score := top(search)) is not None]
        wanted = {
            "searches": len(searches),
            "without_result": sum(not search.results for search in searches),
            "mean_top_score": statistics.mean(scores) if scores else None,
            "last_asked": naive(max(search.occurred_at for search in searches)),
        }
        same([found[key]], [wanted])


def test_query_ratings_and_the_most_and_least_liked(world: World, filters: Filters) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        if feedback.text is not None:
            groups[feedback.text].append(feedback.rating)
    found = {row["text"]: row for row in query(world.lake, "FROM query_ratings", filters)}
    assert set(found) == set(groups)
    for text, ratings in groups.items():
        low, high = interval(ratings)
        assert found[text]["ratings"] == len(ratings)
        assert close(found[text]["mean_rating"], statistics.mean(ratings))
        assert near(found[text]["at_least"], max(1.0, low or 1.0))
        assert near(found[text]["at_most"], min(10.0, high or 10.0))
    most = [row["at_least"] for row in query(world.lake, "FROM most_liked", filters)]
    least = [row["at_most"] for row in query(world.lake, "FROM least_liked", filters)]
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert len(most) == len(least) == len(groups)


def test_rating_counts(world: World, filters: Filters) -> None:
    counts = Counter(f.rating for f in world.kept(world.feedback, filters))
    rows = query(world.lake, "FROM rating_counts", filters)
    assert {row["rating"]: row["ratings"] for row in rows} == counts


def test_ratings_by_model_and_week(world: World, filters: Filters) -> None:
    groups: dict[tuple[datetime, str, str], list[int]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        moment = naive(feedback.occurred_at)
        monday = (moment - timedelta(days=moment.weekday())).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        version = world.by_id[feedback.search_id].model_version
        groups[monday, feedback.model_name, version].append(feedback.rating)
    rows = query(world.lake, "FROM ratings_by_model_week", filters)
    assert [(row["week"], row["model_name"], row["model_version"]) for row in rows] == sorted(
        groups
    )
    for row, ratings in zip(rows, (groups[key] for key in sorted(groups)), strict=True):
        low, high = interval(ratings)
        assert row["ratings"] == len(ratings)
        assert close(row["mean_rating"], statistics.mean(ratings))
        assert near(row["at_least"], low)
        assert near(row["at_most"], high)
        assert row["counts"] == [ratings.count(rating) for rating in range(1, 11)]


def grouped(
    rows: list[dict[str, Any]], key: str, groups: dict[Any, list[int]], *, bounds: bool = True
) -> None:
    """The rows are these groups of ratings, ordered by the key."""
    assert [row[key] for row in rows] == pytest.approx(sorted(groups))
    for row, ratings in zip(rows, (groups[name] for name in sorted(groups)), strict=True):
        assert row["ratings"] == len(ratings)
        assert close(row["mean_rating"], statistics.mean(ratings))
        if bounds:
            low, high = interval(ratings)
            assert near(row["at_least"], low)
            assert near(row["at_most"], high)


def test_ratings_by_score(world: World, filters: Filters) -> None:
    groups: dict[float, list[int]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        if feedback.top_score is not None:
            groups[math.floor(feedback.top_score * 20) / 20].append(feedback.rating)
    grouped(query(world.lake, "FROM ratings_by_score", filters), "from_score", groups)


def test_score_correlation(world: World, filters: Filters) -> None:
    pairs = [
        (f.rating, f.top_score)
        for f in world.kept(world.feedback, filters)
        if f.top_score is not None
    ]
    (row,) = query(world.lake, "FROM score_correlation", filters)
    assert row["ratings"] == len(pairs)
    assert close(row["pearson"], float(np.corrcoef(np.array(pairs).T)[0, 1]))


def test_ratings_by_position(world: World, filters: Filters) -> None:
    groups: dict[int, list[int]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        names = [result.image_name for result in world.by_id[feedback.search_id].results]
        if feedback.image_name is not None:
            groups[names.index(feedback.image_name) + 1].append(feedback.rating)
    grouped(query(world.lake, "FROM ratings_by_position", filters), "place", groups)


def test_rated_images(world: World, filters: Filters) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        if feedback.image_name is not None:
            groups[feedback.image_name].append(feedback.rating)
    rows = query(world.lake, "FROM rated_images", filters)
    assert {row["image_name"]: row["ratings"] for row in rows} == {
        name: len(ratings) for name, ratings in groups.items()
    }
    assert all(close(r["mean_rating"], statistics.mean(groups[r["image_name"]])) for r in rows)


def test_ratings_by_count_of_rated_images(world: World, filters: Filters) -> None:
    searches: dict[Any, list[FeedbackGiven]] = defaultdict(list)
    for feedback in world.kept(world.feedback, filters):
        searches[feedback.search_id].append(feedback)
    groups: dict[int, list[int]] = defaultdict(list)
    counts: Counter[int] = Counter()
    for given in searches.values():
        number = sum(f.image_name is not None for f in given)
        counts[number] += 1
        groups[number] += [f.rating for f in given]
    rows = query(world.lake, "FROM ratings_by_rated_images", filters)
    grouped(rows, "rated_images", groups, bounds=False)
    assert {row["rated_images"]: row["searches"] for row in rows} == counts


def test_time_to_searchable(world: World, filters: Filters) -> None:
    first: dict[Any, ImageIndexed] = {}
    for event in world.kept(world.indexed, filters):
        if event.action == "upserted" and event.added_at is not None:
            key = (event.model_name, event.image_id, event.source_partition, event.source_offset)
            if key not in first or event.occurred_at < first[key].occurred_at:
                first[key] = event
    groups: dict[tuple[datetime, str], list[float]] = defaultdict(list)
    for event in first.values():
        day = naive(event.occurred_at).replace(hour=0, minute=0, second=0, microsecond=0)
        assert event.added_at is not None
        seconds = (event.occurred_at - event.added_at).total_seconds()
        groups[day, event.model_name].append(seconds)
    wanted = [
        {
            "day": day,
            "model_name": model,
            "images": len(times),
            "p50_s": float(np.percentile(times, 50)),
            "p95_s": float(np.percentile(times, 95)),
            "max_s": max(times),
        }
        for (day, model), times in sorted(groups.items())
    ]
    same(query(world.lake, "FROM time_to_searchable", filters), wanted)


def test_dead_letters_by_class(world: World, filters: Filters) -> None:
    groups: dict[str, list[DeadLetter]] = defaultdict(list)
    for letter in world.kept(world.letters, filters):
        groups[letter.error_class].append(letter)
    rows = query(world.lake, "FROM dead_letters_by_class", filters)
    found = {row["error_class"]: row for row in rows}
    assert set(found) == set(groups)
    for name, letters in groups.items():
        wanted = {
            "letters": len(letters),
            "images": len({letter.image_id for letter in letters}),
            "first_at": naive(min(letter.occurred_at for letter in letters)),
            "last_at": naive(max(letter.occurred_at for letter in letters)),
        }
        same([found[name]], [wanted])


def test_model_switches(world: World) -> None:
    rows = query(world.lake, "FROM model_switches")
    moments = [event.occurred_at for event in world.models]
    assert [row["switched_at"] for row in rows] == [naive(moment) for moment in moments[1:]]
    for number, row in enumerate(rows, start=1):
        moment = moments[number]
        since = max(moments[number - 1], moment - timedelta(days=14))
        later = moments[number + 1] if number + 1 < len(moments) else moment + timedelta(days=14)
        until = min(later, moment + timedelta(days=14))
        before = [f.rating for f in world.feedback if since <= f.searched_at < moment]
        after = [f.rating for f in world.feedback if moment <= f.searched_at < until]
        assert (row["ratings_before"], row["ratings_after"]) == (len(before), len(after))
        from scipy.stats import ttest_ind

        welch = ttest_ind(after, before, equal_var=False).confidence_interval()
        assert close(row["difference"], statistics.mean(after) - statistics.mean(before))
        assert near(row["at_least"], float(welch.low))
        assert near(row["at_most"], float(welch.high))
        old = [s.latency_ms.total for s in world.searches if since <= s.occurred_at < moment]
        new = [s.latency_ms.total for s in world.searches if moment <= s.occurred_at < until]
        assert (row["searches_before"], row["searches_after"]) == (len(old), len(new))
        assert close(row["latency_p95_before"], float(np.percentile(old, 95)))
        assert close(row["latency_p95_after"], float(np.percentile(new, 95)))


def test_students_t() -> None:
    lake_free = [(df, student.ppf(0.975, df)) for df in (*range(1, 40), 100, 12345)]
    import duckdb

    sql = SQL.read_text()
    start = sql.index("CREATE OR REPLACE TEMP MACRO t975")
    macro = sql[start : sql.index("-- Half the width")]
    with duckdb.connect() as connection:
        connection.execute(macro)
        for df, wanted in lake_free:
            (found,) = connection.execute(f"SELECT t975({df})").fetchone() or (None,)
            assert found == pytest.approx(wanted, abs=2.5e-4), df
        assert connection.execute("SELECT t975(0)").fetchone() == (None,)


def test_an_empty_lake_answers_every_question_with_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with pytest.raises(Unavailable, match="empty"), views(lake):
        pass
    lake.current()
    assert query(lake, "FROM searches") == []
    (totals,) = query(lake, "FROM totals")
    assert totals["searches"] == 0
    assert query(lake, "FROM model_switches") == []


def test_files_that_vanish_meanwhile_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    end = End()
    rows = records(Events(1).messages("searches", 9))
    for part in (rows[:5], rows[5:]):
        end = lake.current().append(topic_of("searches"), Place("searches", 0), end, part)
    from contextlib import contextmanager

    import analytics.views

    vanished = False

    @contextmanager
    def vanishing(*arguments: Any) -> Any:
        nonlocal vanished
        with views(*arguments) as connection:
            if not vanished:
                vanished = True
                compact(lake.current(), "searches", min_files=2)
                compact(lake.current(), "searches", grace_seconds=-60)
            yield connection

    monkeypatch.setattr(analytics.views, "views", vanishing)
    assert query(lake, "SELECT count(*) AS n FROM searches") == [{"n": 9}]
    assert vanished


def test_a_lake_that_is_not_local(tmp_path: Path) -> None:
    lake = Lake("memory://views-of-tests")
    rows = records(Events(1).messages("searches", 9))
    lake.current().append(topic_of("searches"), Place("searches", 0), End(), rows)
    assert query(lake, "SELECT count(*) AS n FROM searches") == [{"n": 9}]


def test_pandas_free_readers_see_arrow(world: World) -> None:
    with views(world.lake) as connection:
        found = connection.sql("FROM searches_over_time").to_arrow_table()
    assert found.num_rows > 100
