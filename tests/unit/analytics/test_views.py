"""Every view against a plain recomputation from the events."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from scipy.stats import t as student

import analytics.views
from adapters.errors import Unavailable
from adapters.log.port import LogRecord, Message
from analytics.compaction import compact
from analytics.lake import Lake, LakePartition, PartitionEnd
from analytics.views import SQL, EventFilters, query, read, views
from tests.support.analytics_numbers import VIEWS, Facts, compare, kept
from tests.support.lake_events import BEGIN, Events, records, topic_of

FILTERS = [
    EventFilters(),
    EventFilters(model="clip"),
    EventFilters(since=BEGIN + timedelta(days=9), until=BEGIN + timedelta(days=25)),
    EventFilters(since=BEGIN + timedelta(days=9), model="lite"),
]
BASE = {
    "searches": "searches",
    "feedback": "feedback",
    "images_indexed": "indexed",
    "dead_letters": "letters",
}


class World:
    """A lake, and the events in it."""

    def __init__(self, url: str) -> None:
        self.lake = Lake(url)
        events = Events(11)
        values: dict[str, list[bytes]] = {}
        for name, count in (
            ("searches", 1500),
            ("feedback", 1200),
            ("images.indexed", 800),
            ("images.dlq", 60),
            ("models", 8),
        ):
            messages: list[Message] = events.messages(name, count)
            values[name] = [record.value or b"" for record in records(messages)]
            self.file(name, messages)
        self.facts = Facts(values)

    def file(self, name: str, messages: list[Message]) -> None:
        """In three parts, the middle one compacted away, and one record that is no event."""
        rows = records(messages)
        bad = rows[-1].position
        rows.append(LogRecord(type(bad)(0, bad.offset + 1), b"k", b"no event", 0))
        partition, end, third = LakePartition(name, 0), PartitionEnd(), len(rows) // 3
        for part in (rows[:third], rows[third : 2 * third], rows[2 * third :]):
            end = self.lake.current().append(topic_of(name), partition, end, part)
        compact(self.lake.current(), name, min_files=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module", params=FILTERS, ids=["all", "model", "period", "both"])
def filters(request: pytest.FixtureRequest) -> EventFilters:
    found: EventFilters = request.param
    return found


@pytest.fixture(scope="module")
def found(world: World, filters: EventFilters) -> dict[str, list[dict[str, Any]]]:
    """Every view's rows."""
    return read(world.lake, {name: f"FROM {name}" for name in _defined()}, filters)


def _defined() -> set[str]:
    return set(re.findall(r"VIEW (\w+) AS", SQL.read_text()))


def test_every_view_is_tested_here() -> None:
    assert _defined() == {*VIEWS, *BASE, "all_searches", "all_feedback", "models"}


@pytest.mark.slow
def test_base_views_hold_the_events(world: World, filters: EventFilters, found: Any) -> None:
    for view, name in BASE.items():
        assert {row["event_id"]: row["occurred_at"] for row in found[view]} == {
            event["event_id"]: event["occurred_at"]
            for event in kept(getattr(world.facts, name), filters)
        }
    assert len(found["all_searches"]) == len(world.facts.searches)
    assert len(found["all_feedback"]) == len(world.facts.feedback)
    assert len(found["models"]) == len(world.facts.models)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_holds_the_numbers_of_the_events(
    world: World, filters: EventFilters, found: Any, name: str
) -> None:
    assert len(found[name]) == len(VIEWS[name].rows(world.facts, filters, "hour"))
    assert compare(name, found[name], world.facts, filters, "hour") > 0


def test_quantiles_of_students_t_are_right() -> None:
    lake_free = [(df, student.ppf(0.975, df)) for df in (*range(1, 40), 100, 12345)]
    sql = SQL.read_text()
    start = sql.index("CREATE OR REPLACE TEMP MACRO t975")
    macro = sql[start : sql.index("-- Half the width")]
    with duckdb.connect() as connection:
        connection.execute(macro)
        for df, wanted in lake_free:
            (found,) = connection.execute(f"SELECT t975({df})").fetchone() or (None,)
            assert found == pytest.approx(wanted, abs=2.5e-4), df
        assert connection.execute("SELECT t975(0)").fetchone() == (None,)


@pytest.mark.slow
def test_every_query_of_an_empty_lake_is_empty(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with pytest.raises(Unavailable, match="empty"), views(lake):
        pass
    lake.current()
    assert query(lake, "FROM searches") == []
    (totals,) = query(lake, "FROM totals")
    assert totals["searches"] == 0
    assert query(lake, "FROM model_switches") == []


@pytest.mark.slow
def test_files_deleted_during_a_query_are_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    end = PartitionEnd()
    rows = records(Events(1).messages("searches", 9))
    for part in (rows[:5], rows[5:]):
        end = lake.current().append(topic_of("searches"), LakePartition("searches", 0), end, part)
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


@pytest.mark.slow
def test_a_lake_on_another_file_system_can_be_queried(tmp_path: Path) -> None:
    lake = Lake("memory://views-of-tests")
    rows = records(Events(1).messages("searches", 9))
    lake.current().append(topic_of("searches"), LakePartition("searches", 0), PartitionEnd(), rows)
    assert query(lake, "SELECT count(*) AS n FROM searches") == [{"n": 9}]


@pytest.mark.slow
def test_pandas_free_readers_see_arrow(world: World) -> None:
    with views(world.lake) as connection:
        found = connection.sql("FROM searches_over_time").to_arrow_table()
    assert found.num_rows > 100
