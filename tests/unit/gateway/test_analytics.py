"""The analytics routes and the report, on a lake without servers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from analytics.engine import QueryLimits
from analytics.lake import Lake, LakePartition, PartitionEnd
from analytics.report import ASSETS, WEB, render
from analytics.views import EventFilters
from gateway.http import problems
from gateway.routes.analytics import router
from gateway.state.lake_queries import LakeQueries
from schemas.events import FeedbackGiven, SearchPerformed
from tests.support.lake_events import BEGIN, Events, records, topic_of

DASHBOARD, BEHIND = "/api/v1/analytics/dashboard", "/api/v1/analytics/searches"


class World:
    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        events = Events(21)
        searches = events.messages("searches", 400)
        feedback = events.messages("feedback", 300)
        for name, messages in (("searches", searches), ("feedback", feedback)):
            lake.current().append(
                topic_of(name), LakePartition(name, 0), PartitionEnd(), records(messages)
            )
        self.searches = [m.event for m in searches if isinstance(m.event, SearchPerformed)]
        last = {
            (m.event.search_id, m.event.image_name): m.event
            for m in feedback
            if isinstance(m.event, FeedbackGiven)
        }
        self.feedback = list(last.values())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(Lake(str(tmp_path_factory.mktemp("lake"))))


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(world.lake.url) as found:
        yield found


def serve(lake_url: str) -> httpx.AsyncClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(router(LakeQueries(lake_url, QueryLimits(256 << 20, 2))))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    response = await client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.slow
async def test_the_numbers_are_those_of_the_events(client: httpx.AsyncClient, world: World) -> None:
    found = await get(client, DASHBOARD)
    assert found["totals"]["searches"] == len(world.searches)
    assert found["totals"]["ratings"] == len(world.feedback)
    assert found["models"] == ["clip", "lite"]
    assert found["bucket"] == "day"
    assert sum(row["searches"] for row in found["over_time"]) == len(world.searches)
    assert found["over_time"][0]["bucket"] == "2026-01-05T00:00:00Z"


@pytest.mark.slow
async def test_period_and_model_filter_all_numbers(client: httpx.AsyncClient, world: World) -> None:
    since, until = BEGIN + timedelta(days=3), BEGIN + timedelta(days=6)
    wanted = [
        search
        for search in world.searches
        if since <= search.occurred_at < until and search.model_name == "clip"
    ]
    found = await get(
        client, DASHBOARD, since=since.isoformat(), until=until.isoformat(), model="clip"
    )
    assert found["totals"]["searches"] == len(wanted)
    assert found["bucket"] == "hour"
    naive = await get(client, DASHBOARD, since=since.replace(tzinfo=None).isoformat(), model="clip")
    zoned = await get(client, DASHBOARD, since=since.isoformat(), model="clip")
    assert naive["rating_counts"] == zoned["rating_counts"], "a time without a zone is UTC"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("since", "yesterday"),
        ("until", "1234567890"),
        ("until", "1.3e-123"),
        ("rating", "11"),
        ("limit", "0"),
        ("place", "first"),
        ("score_from", "nan"),
        ("without_result", "perhaps"),
        ("rated_images", "-1"),
    ],
)
async def test_a_bad_parameter_is_named(client: httpx.AsyncClient, name: str, value: str) -> None:
    response = await client.get(BEHIND, params={name: value})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    assert any(name in error["field"] for error in response.json()["errors"])


@pytest.mark.slow
async def test_each_number_lists_its_searches(client: httpx.AsyncClient, world: World) -> None:
    by_id = {search.search_id: search for search in world.searches}

    async def ids(**parameters: Any) -> set[str]:
        found = await get(client, BEHIND, limit=500, **parameters)
        return {search["search_id"] for search in found["searches"]}

    assert await ids() == {str(search.search_id) for search in world.searches}
    assert await ids(text="tennis") == {
        str(search.search_id) for search in world.searches if search.text == "tennis"
    }
    assert await ids(without_result=True) == {
        str(search.search_id) for search in world.searches if not search.results
    }
    assert await ids(rating=10) == {
        str(feedback.search_id) for feedback in world.feedback if feedback.rating == 10
    }
    assert await ids(place=2) == {
        str(feedback.search_id)
        for feedback in world.feedback
        if feedback.image_name
        in [result.image_name for result in by_id[feedback.search_id].results][1:2]
    }
    assert await ids(score_from=0.2, score_below=0.4) == {
        str(search.search_id)
        for search in world.searches
        if search.results and 0.2 <= search.results[0].score < 0.4
    }
    assert await ids(text="") == {
        str(search.search_id) for search in world.searches if search.text is None
    }
    assert await ids(weak=True) == {
        str(search.search_id)
        for search in world.searches
        if not search.results or search.results[0].score < 0.2
    }
    assert await ids(rated=True) == {str(feedback.search_id) for feedback in world.feedback}
    images = Counter(str(feedback.search_id) for feedback in world.feedback if feedback.image_name)
    assert await ids(rated_images=1) == {name for name, count in images.items() if count == 1}
    day = BEGIN + timedelta(days=2)
    assert await ids(since=day.isoformat(), until=(day + timedelta(days=1)).isoformat()) == {
        str(search.search_id)
        for search in world.searches
        if day <= search.occurred_at < day + timedelta(days=1)
    }


@pytest.mark.slow
async def test_a_search_is_returned_with_its_images_and_ratings(
    client: httpx.AsyncClient, world: World
) -> None:
    found = (await get(client, BEHIND, limit=500))["searches"]
    moments = [row["occurred_at"] for row in found]
    assert moments == sorted(moments, reverse=True)
    by_id = {str(search.search_id): search for search in world.searches}
    for row in found:
        search = by_id[row["search_id"]]
        assert row["results"] == [result.model_dump() for result in search.results]
        assert sorted(given["rating"] for given in row["ratings"]) == sorted(
            f.rating for f in world.feedback if f.search_id == search.search_id
        )


@pytest.mark.slow
async def test_text_in_a_query_is_not_executed(client: httpx.AsyncClient) -> None:
    assert (await get(client, BEHIND, text="' OR 1=1 --"))["searches"] == []
    assert (await get(client, DASHBOARD, model="'; DROP VIEW searches; --"))["totals"] is not None


async def test_a_missing_lake_is_unavailable(tmp_path: Path) -> None:
    async with serve(str(tmp_path / "none")) as client:
        response = await client.get(DASHBOARD)
    assert response.status_code == 503
    assert "written nothing yet" in response.json()["detail"]
    assert response.json()["empty_lake"] is True
    assert not (tmp_path / "none").exists(), "reading makes nothing"


async def test_the_dashboard_loads_nothing_from_other_hosts(client: httpx.AsyncClient) -> None:
    page = await client.get("/analytics")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"""(src|href)="https?:""", page.text)
    for name in re.findall(r'"/analytics/([^"]+)"', page.text):
        assert (await client.get(f"/analytics/{name}")).status_code == 200, name
    assert (await client.get("/analytics/index.html")).status_code == 404
    assert (await client.get("/analytics/..%2f..%2fviews.sql")).status_code == 404


def test_the_chart_library_comes_with_its_licence() -> None:
    assert "MIT License" in (WEB / "vendor" / "chart.LICENSE.md").read_text()
    assert all((WEB / file).is_file() for file, _ in ASSETS.values())


class TestReport:
    @pytest.mark.slow
    def test_a_report_contains_its_numbers_and_no_links(self, world: World) -> None:
        page = render(world.lake, EventFilters(model="lite"))
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
        assert data is not None
        found = json.loads(data[1])
        assert found["totals"]["searches"] == sum(s.model_name == "lite" for s in world.searches)
        assert not re.search(r"""<[^>]+ (src|href)=""", page.split("<script>")[0])

    @pytest.mark.slow
    def test_a_query_text_is_escaped_in_a_report(self, tmp_path: Path) -> None:
        lake = Lake(str(tmp_path))
        search = Events(1).search(results=0)
        evil = search.model_copy(update={"text": "</script><script>alert(1)</script>"})
        from adapters.log.port import Message

        made = records([Message(str(evil.search_id), evil)])
        lake.current().append(
            topic_of("searches"), LakePartition("searches", 0), PartitionEnd(), made
        )
        assert "<script>alert" not in render(lake, EventFilters())

    @pytest.mark.slow
    def test_a_report_states_its_period_and_model(self, world: World) -> None:
        page = render(world.lake, EventFilters(datetime(2026, 1, 6, tzinfo=UTC), None, "a<b"))
        assert "from 2026-01-06" in page
        assert "model a&lt;b" in page
