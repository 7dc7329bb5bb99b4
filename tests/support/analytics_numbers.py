"""Computes each view of `analytics/views.sql` in plain Python, from the events themselves."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_ind

from analytics.dashboard import QUERIES
from analytics.views import EventFilters

Row = dict[str, Any]
TIMES = ("occurred_at", "searched_at", "added_at")


class Facts:
    """The events of a lake's topics as plain dictionaries, read from Kafka's values."""

    def __init__(
        self, values: Mapping[str, Iterable[bytes]], forgotten: Collection[str] = ()
    ) -> None:
        """`values` by topic, those of a partition in order; without the searches forgotten."""
        read = {
            topic: [
                event
                for value in each
                if (event := _event(value)).get("search_id") not in forgotten
            ]
            for topic, each in values.items()
        }
        self.searches = read["searches"]
        self.given = read["feedback"]
        self.indexed = read["images.indexed"]
        self.letters = read["images.dlq"]
        self.models = sorted(read["models"], key=lambda event: event["occurred_at"])
        last = {(f["search_id"], f["image_name"]): f for f in self.given}
        self.feedback = list(last.values())
        self.by_id = {search["search_id"]: search for search in self.searches}


def _event(value: bytes) -> Row:
    event: Row = json.loads(value)
    for name in TIMES:
        if event.get(name):
            event[name] = _naive(datetime.fromisoformat(event[name]))
    return event


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def kept(events: Iterable[Row], filters: EventFilters) -> list[Row]:
    """The events of the period and the model."""
    since, until = (m and _naive(m) for m in (filters.since, filters.until))
    return [
        event
        for event in events
        if (since is None or event["occurred_at"] >= since)
        and (until is None or event["occurred_at"] < until)
        and (filters.model is None or event["model_name"] in (filters.model, None))
    ]


def _p(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _interval(values: Sequence[int]) -> tuple[float | None, float | None]:
    """A mean's 95 % confidence interval, with SciPy's quantile."""
    if len(values) < 2:
        return None, None
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _rated(values: Sequence[int]) -> Row:
    low, high = _interval(values)
    return {
        "ratings": len(values),
        "mean_rating": _mean(values),
        "at_least": low,
        "at_most": high,
    }


def _top(search: Row) -> float | None:
    return search["results"][0]["score"] if search["results"] else None


def _totals(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    searches = kept(facts.searches, filters)
    ratings = [f["rating"] for f in kept(facts.feedback, filters)]
    return [
        {
            "searches": len(searches),
            "without_result": sum(not s["results"] for s in searches),
            "latency_p95_ms": _p([s["latency_ms"]["total"] for s in searches], 95),
            "ratings": len(ratings),
            "mean_rating": _mean(ratings),
            "index_changes": len(kept(facts.indexed, filters)),
            "dead_letters": len(kept(facts.letters, filters)),
        }
    ]


def _over_time(facts: Facts, filters: EventFilters, bucket: str) -> list[Row]:
    groups: dict[datetime, list[Row]] = defaultdict(list)
    for search in kept(facts.searches, filters):
        start = search["occurred_at"].replace(minute=0, second=0, microsecond=0)
        groups[start.replace(hour=0) if bucket == "day" else start].append(search)
    return [
        {
            "bucket": start,
            "searches": len(found),
            "without_result": sum(not s["results"] for s in found),
            "mean_top_score": _mean([x for s in found if (x := _top(s)) is not None]),
            "latency_p95_ms": _p([s["latency_ms"]["total"] for s in found], 95),
        }
        for start, found in sorted(groups.items())
    ]


def _latency(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    searches = kept(facts.searches, filters)
    rows = []
    for stage in ("embed", "query", "total") if searches else ():
        times = [search["latency_ms"][stage] for search in searches]
        percents = {f"p{percent}_ms": _p(times, percent) for percent in (50, 90, 95, 99)}
        rows.append({"stage": stage, "searches": len(times), **percents, "max_ms": max(times)})
    return rows


def _weak(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    groups: dict[tuple[str | None, str], list[Row]] = defaultdict(list)
    for search in kept(facts.searches, filters):
        score = _top(search)
        if score is None or score < 0.2:
            groups[search["text"], search["kind"]].append(search)
    rows = [
        {
            "text": text,
            "kind": kind,
            "searches": len(found),
            "without_result": sum(not s["results"] for s in found),
            "mean_top_score": _mean([x for s in found if (x := _top(s)) is not None]),
            "last_asked": max(s["occurred_at"] for s in found),
        }
        for (text, kind), found in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["searches"])


def _query_ratings(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    groups: dict[str, list[int]] = defaultdict(list)
    for feedback in kept(facts.feedback, filters):
        if feedback["text"] is not None:
            groups[feedback["text"]].append(feedback["rating"])
    rows = [{"text": text, **_rated(ratings)} for text, ratings in groups.items()]
    for row in rows:
        one = row["at_least"] is None
        row["at_least"] = 1.0 if one else max(1.0, row["at_least"])
        row["at_most"] = 10.0 if one else min(10.0, row["at_most"])
    return rows


def _most(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    return sorted(_query_ratings(facts, filters, _), key=lambda row: -row["at_least"])


def _least(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    rows: list[Row] = sorted(_query_ratings(facts, filters, _), key=lambda row: row["at_most"])
    return rows


def _rating_counts(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    counts = Counter(f["rating"] for f in kept(facts.feedback, filters))
    return [{"rating": rating, "ratings": count} for rating, count in sorted(counts.items())]


def _by_week(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    groups: dict[tuple[datetime, str, str | None], list[int]] = defaultdict(list)
    for feedback in kept(facts.feedback, filters):
        day = feedback["occurred_at"].replace(hour=0, minute=0, second=0, microsecond=0)
        version = facts.by_id.get(feedback["search_id"], {}).get("model_version")
        monday = day - timedelta(days=day.weekday())
        groups[monday, feedback["model_name"], version].append(feedback["rating"])
    return [
        {
            "week": week,
            "model_name": model,
            "model_version": version,
            **_rated(ratings),
            "counts": [ratings.count(rating) for rating in range(1, 11)],
        }
        for (week, model, version), ratings in sorted(
            groups.items(), key=lambda group: (group[0][:2], group[0][2] is None, group[0][2])
        )
    ]


def _by(facts: Facts, filters: EventFilters, name: str, key: Callable[[Row], Any]) -> list[Row]:
    groups: dict[Any, list[int]] = defaultdict(list)
    for feedback in kept(facts.feedback, filters):
        if (group := key(feedback)) is not None:
            groups[group].append(feedback["rating"])
    return [{name: group, **_rated(ratings)} for group, ratings in sorted(groups.items())]


def _by_score(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    return _by(
        facts,
        filters,
        "from_score",
        lambda f: None if f["top_score"] is None else math.floor(f["top_score"] * 20) / 20,
    )


def _by_position(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    def position(feedback: Row) -> int | None:
        results = facts.by_id.get(feedback["search_id"], {"results": ()})["results"]
        names = [result["image_name"] for result in results]
        rated = feedback["image_name"]
        return names.index(rated) + 1 if rated in names else None

    return _by(facts, filters, "place", position)


def _rated_images(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    rows = _by(facts, filters, "image_name", lambda f: f["image_name"])
    return sorted(
        ({name: row[name] for name in ("image_name", "ratings", "mean_rating")} for row in rows),
        key=lambda row: (-row["ratings"], row["image_name"]),
    )


def _by_rated_images(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    searches: dict[str, list[Row]] = defaultdict(list)
    for feedback in kept(facts.feedback, filters):
        searches[feedback["search_id"]].append(feedback)
    groups: dict[int, list[list[Row]]] = defaultdict(list)
    for given in searches.values():
        groups[sum(f["image_name"] is not None for f in given)].append(given)
    return [
        {
            "rated_images": number,
            "searches": len(found),
            "ratings": sum(map(len, found)),
            "mean_rating": _mean([f["rating"] for given in found for f in given]),
        }
        for number, found in sorted(groups.items())
    ]


def _correlation(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    pairs = [
        (f["rating"], f["top_score"])
        for f in kept(facts.feedback, filters)
        if f["top_score"] is not None
    ]
    varied = all(len(set(values)) > 1 for values in zip(*pairs, strict=True)) and len(pairs) > 1
    pearson = float(np.corrcoef(np.array(pairs).T)[0, 1]) if varied else None
    return [{"ratings": len(pairs), "pearson": pearson}]


def _time_to_searchable(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    first: dict[Any, Row] = {}
    for event in kept(facts.indexed, filters):
        if event["action"] == "upserted" and event["added_at"] is not None:
            source = (event["source_partition"], event["source_offset"])
            key = (event["model_name"], event["image_id"], *source)
            if key not in first or event["occurred_at"] < first[key]["occurred_at"]:
                first[key] = event
    groups: dict[tuple[datetime, str], list[float]] = defaultdict(list)
    for event in first.values():
        day = event["occurred_at"].replace(hour=0, minute=0, second=0, microsecond=0)
        seconds = (event["occurred_at"] - event["added_at"]).total_seconds()
        groups[day, event["model_name"]].append(seconds)
    return [
        {
            "day": day,
            "model_name": model,
            "images": len(times),
            "p50_s": _p(times, 50),
            "p95_s": _p(times, 95),
            "max_s": max(times),
        }
        for (day, model), times in sorted(groups.items())
    ]


def _dead_letters(facts: Facts, filters: EventFilters, _: str) -> list[Row]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for letter in kept(facts.letters, filters):
        groups[letter["error_class"], letter["source_topic"]].append(letter)
    return [
        {
            "error_class": name,
            "source_topic": topic,
            "letters": len(letters),
            "images": len({letter["image_id"] for letter in letters}),
            "first_at": min(letter["occurred_at"] for letter in letters),
            "last_at": max(letter["occurred_at"] for letter in letters),
        }
        for (name, topic), letters in sorted(
            groups.items(), key=lambda group: (-len(group[1]), group[0])
        )
    ]


def _switches(facts: Facts, _: EventFilters, __: str) -> list[Row]:
    rows = []
    events: list[Row] = []
    for each in facts.models:
        active = events[-1]["collection"] if events else None
        if each["step"] in ("activated", "rolled_back") and each["collection"] != active:
            events.append(each)
    days = timedelta(days=14)
    for number, event in enumerate(events):
        if number == 0:
            continue
        moment = event["occurred_at"]
        since = max(events[number - 1]["occurred_at"], moment - days)
        until = moment + days
        if number + 1 < len(events):
            until = min(events[number + 1]["occurred_at"], until)
        old = [f["rating"] for f in facts.feedback if since <= f["searched_at"] < moment]
        new = [f["rating"] for f in facts.feedback if moment <= f["searched_at"] < until]
        before, after = (
            [s["latency_ms"]["total"] for s in facts.searches if start <= s["occurred_at"] < end]
            for start, end in ((since, moment), (moment, until))
        )
        row: Row = {
            "switched_at": moment,
            "model_name": event["model_name"],
            "model_version": event["model_version"],
            "from_collection": events[number - 1]["collection"],
            "collection": event["collection"],
            "searches_before": len(before),
            "searches_after": len(after),
            "latency_p95_before": _p(before, 95),
            "latency_p95_after": _p(after, 95),
            "ratings_before": len(old),
            "ratings_after": len(new),
            "mean_before": _mean(old),
            "mean_after": _mean(new),
            "difference": statistics.fmean(new) - statistics.fmean(old) if old and new else None,
            "at_least": None,
            "at_most": None,
        }
        if len(old) > 1 and len(new) > 1 and len({*old}) + len({*new}) > 2:
            # Welch's interval (Welch 1947).
            welch = ttest_ind(new, old, equal_var=False).confidence_interval()
            row |= {"at_least": float(welch.low), "at_most": float(welch.high)}
        rows.append(row)
    return rows


@dataclass(frozen=True)
class View:
    """How a view is computed, which columns identify a row, and which column orders it."""

    rows: Callable[[Facts, EventFilters, str], list[Row]]
    key: tuple[str, ...] = ()
    order: str | None = None


VIEWS: Final = {
    "totals": View(_totals),
    "searches_over_time": View(_over_time, ("bucket",)),
    "latency_by_stage": View(_latency, ("stage",)),
    "weak_queries": View(_weak, ("text", "kind"), "searches"),
    "query_ratings": View(_query_ratings, ("text",), "nothing"),
    "most_liked": View(_most, ("text",), "at_least"),
    "least_liked": View(_least, ("text",), "at_most"),
    "rating_counts": View(_rating_counts, ("rating",)),
    "ratings_by_model_week": View(_by_week, ("week", "model_name", "model_version")),
    "ratings_by_score": View(_by_score, ("from_score",)),
    "score_correlation": View(_correlation),
    "ratings_by_position": View(_by_position, ("place",)),
    "rated_images": View(_rated_images, ("image_name",)),
    "ratings_by_rated_images": View(_by_rated_images, ("rated_images",)),
    "time_to_searchable": View(_time_to_searchable, ("day", "model_name")),
    "dead_letters_by_class": View(_dead_letters, ("error_class", "source_topic")),
    "model_switches": View(_switches, ("switched_at",)),
}


def compare(
    name: str, found: Sequence[Row], facts: Facts, filters: EventFilters, bucket: str
) -> int:
    """Compare a view's rows, or its first ones, with the events; returns how many numbers."""
    view = VIEWS[name]
    wanted = view.rows(facts, filters, bucket)
    rows = [{column: _plain(value) for column, value in row.items()} for row in found]
    by_key = {tuple(row[column] for column in view.key): row for row in wanted}
    assert len(rows) <= len(wanted) == len(by_key), name
    numbers = 0
    for row, in_place in zip(rows, wanted, strict=False):
        key = tuple(row[column] for column in view.key)
        assert key in by_key, (name, key)
        if view.order is None:
            assert key == tuple(in_place[column] for column in view.key), (name, key)
        elif view.order in row:
            # Rows that are equal but for rounding may stand in either order.
            assert _close(view.order, row[view.order], in_place[view.order]), (name, key)
        for column, value in by_key[key].items():
            assert _close(column, row[column], value), (name, key, column, row[column], value)
            numbers += 1
    return numbers


def compare_dashboard(found: Mapping[str, Any], facts: Facts, filters: EventFilters) -> int:
    """Compare every number of the page with the events; returns how many numbers."""
    numbers = 0
    for question, sql in QUERIES.items():
        if question == "models":
            assert found["models"] == sorted({s["model_name"] for s in facts.searches})
            continue
        printed = re.fullmatch(r"FROM (\w+)(?: WHERE place <= 20)?(?: LIMIT (\d+))?", sql)
        assert printed is not None, sql
        rows = found[question]
        rows = rows if isinstance(rows, list) else [rows]
        total = len(VIEWS[printed[1]].rows(facts, filters, found["bucket"]))
        if question != "ratings_by_position":
            assert len(rows) == min(total, int(printed[2] or total)), question
        numbers += compare(printed[1], rows, facts, filters, found["bucket"])
    return numbers


def _plain(value: Any) -> Any:
    """Times of JSON as the database returns them."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        return _naive(datetime.fromisoformat(value))
    return value


def _close(column: str, found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, int | float) or found is None:
        return bool(found == wanted)
    # The views' quantile of Student's t is an approximation.
    tolerance = 2e-3 if column in ("at_least", "at_most") else 1e-9
    return math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance)
