"""Pictures without a query: pages of the newest ones, and the folders they are in."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.naming import object_id
from gateway import ttl_cache
from gateway.state import folders
from gateway.state.folders import by_folder
from tests.support.gateway_on_fakes import (
    WHEN,
    Gateway,
    assert_problem,
    gateway,
    image_record,
    unit,
)

IMAGES, FOLDERS = "/api/v1/images", "/api/v1/folders"


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(ttl_cache, "TTL_PER_COST", 0.0)
    async with gateway(tmp_path, small_spec) as bench:
        yield bench


async def fill(bench: Gateway, *names: str) -> None:
    """Add pictures of these names, each a minute after the one before."""
    await bench.index.upsert(
        bench.collection,
        [
            image_record(name, unit(1), added_at=WHEN + timedelta(minutes=minute), width=minute)
            for minute, name in enumerate(names)
        ],
    )


async def listed(bench: Gateway, **parameters: Any) -> dict[str, Any]:
    response = await bench.client.get(IMAGES, params=parameters)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def names(body: dict[str, Any]) -> list[str]:
    return [image["image_name"] for image in body["images"]]


class TestImages:
    async def test_the_newest_come_first(self, bench: Gateway) -> None:
        await fill(bench, "a.jpg", "c/b.jpg", "b.jpg")
        body = await listed(bench)
        assert body == {
            "images": [
                {"image_name": "b.jpg", "added_at": "2026-01-05T00:02:00Z"},
                {"image_name": "c/b.jpg", "added_at": "2026-01-05T00:01:00Z"},
                {"image_name": "a.jpg", "added_at": "2026-01-05T00:00:00Z"},
            ],
            "next_cursor": None,
        }
        first = (await listed(bench, include=["width", "camera", "added_at"], limit=1))["images"]
        assert first == [
            {
                "image_name": "b.jpg",
                "added_at": "2026-01-05T00:02:00Z",
                "width": 2,
                "camera": None,
            }
        ]

    async def test_an_empty_collection(self, bench: Gateway) -> None:
        assert await listed(bench) == {"images": [], "next_cursor": None}

    async def test_pages_go_on_while_pictures_come_and_go(self, bench: Gateway) -> None:
        await fill(bench, *(f"{number}.jpg" for number in range(7)))
        first = await listed(bench, limit=3)
        assert names(first) == ["6.jpg", "5.jpg", "4.jpg"]
        await bench.index.delete(bench.collection, ["4.jpg", "2.jpg"])
        newer = image_record("new.jpg", unit(1), added_at=WHEN + timedelta(days=1))
        await bench.index.upsert(bench.collection, [newer])
        second = await listed(bench, limit=2, cursor=first["next_cursor"])
        assert names(second) == ["3.jpg", "1.jpg"]
        third = await listed(bench, limit=2, cursor=second["next_cursor"])
        assert (names(third), third["next_cursor"]) == (["0.jpg"], None)

    async def test_a_cursor_outlives_a_switch_of_the_model(
        self, bench: Gateway, small_spec: ModelSpec
    ) -> None:
        await fill(bench, "a.jpg", "b.jpg")
        first = await listed(bench, limit=1)
        other = await bench.index.ensure_collection(small_spec.model_copy(update={"version": "2"}))
        await bench.index.upsert(other, list(bench.index.records[bench.collection.name].values()))
        await bench.index.activate(other)
        assert names(await listed(bench, cursor=first["next_cursor"])) == ["a.jpg"]

    async def test_filters_are_those_of_a_search(self, bench: Gateway) -> None:
        await fill(bench, "a/1.jpg", "b/2.jpg", "a/c/3.jpg", "ab/4.jpg")
        inside = json.dumps({"folder": "a"})
        assert names(await listed(bench, filters=inside)) == ["a/c/3.jpg", "a/1.jpg"]
        both = json.dumps({"folder": "a", "width": {"max": 1}})
        assert names(await listed(bench, filters=both)) == ["a/1.jpg"]
        cursor = (await listed(bench, filters=inside, limit=1))["next_cursor"]
        assert names(await listed(bench, filters=inside, cursor=cursor)) == ["a/1.jpg"]
        refused = await bench.client.get(IMAGES, params={"cursor": cursor})
        assert_problem(refused, 422, "cursor")

    @pytest.mark.parametrize(
        ("parameter", "value", "field"),
        [
            ("limit", "0", "limit"),
            ("limit", "1001", "limit"),
            ("order", "oldest", "order"),
            ("include", "uri", "include.0"),
            ("cursor", "made up", "cursor"),
            ("filters", "{", "filters"),
            ("filters", "[]", "filters"),
            ("filters", '{"colour": "red"}', "filters.colour"),
            ("filters", '{"width": {"min": 5, "max": 1}}', "filters.width"),
        ],
    )
    async def test_what_is_wrong_is_named(
        self, bench: Gateway, parameter: str, value: str, field: str
    ) -> None:
        assert_problem(await bench.client.get(IMAGES, params={parameter: value}), 422, field)

    async def test_an_outage_is_told(self, bench: Gateway) -> None:
        bench.index.available = False
        assert_problem(await bench.client.get(IMAGES), 503)
        assert_problem(await bench.client.get(FOLDERS), 503)

    async def test_uploads_keep_their_bounds_and_listing_has_the_usual_ones(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, max_body_bytes=1000, max_upload_bytes=9000) as it:
            sent = await it.client.request("GET", IMAGES, content=b"x" * 2000)
            assert_problem(sent, 413)
            assert_problem(await it.client.post(IMAGES, content=b"x" * 2000), 422)


class TestFolders:
    async def counted(self, bench: Gateway, **parameters: Any) -> dict[str, Any]:
        response = await bench.client.get(FOLDERS, params=parameters)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def test_the_largest_come_first(self, bench: Gateway) -> None:
        await fill(bench, "top.jpg", "a/1.jpg", "b/2.jpg", "b/c/3.jpg", "c/4.jpg")
        assert await self.counted(bench) == {
            "root": "images",
            "images": 5,
            "folders": [
                {"folder": "b", "images": 2},
                {"folder": "a", "images": 1},
                {"folder": "c", "images": 1},
            ],
            "elsewhere": 1,
            "exact": True,
        }
        limited = await self.counted(bench, limit=1)
        assert (len(limited["folders"]), limited["elsewhere"]) == (1, 3)

    async def test_nothing_yet(self, bench: Gateway) -> None:
        assert await self.counted(bench) == {
            "root": "images",
            "images": 0,
            "folders": [],
            "elsewhere": 0,
            "exact": True,
        }

    async def test_each_listed_folder_is_a_filter(self, bench: Gateway) -> None:
        await fill(bench, "all/a/1.jpg", "all/b c/2.jpg", "all/b c/3.jpg")
        for each in (await self.counted(bench))["folders"]:
            chosen = await listed(bench, filters=json.dumps({"folder": each["folder"]}))
            assert len(chosen["images"]) == each["images"]

    async def test_a_large_collection_is_sampled(
        self, bench: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folders, "SAMPLE", 200)
        monkeypatch.setattr(folders, "STEP", 50)
        every = [f"{'large' if number % 4 else 'small'}/{number}.jpg" for number in range(1000)]
        await fill(bench, *every)
        body = await self.counted(bench)
        assert (body["images"], body["exact"]) == (1000, False)
        sample = sorted(every, key=object_id)[:200]
        large = 5 * sum(name.startswith("large/") for name in sample)
        assert body["folders"] == [
            {"folder": "large", "images": large},
            {"folder": "small", "images": 1000 - large},
        ]
        assert large == pytest.approx(750, abs=100)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([], {}),
        (["a.jpg"], {}),
        (["a/1.jpg", "2.jpg"], {"a": 1}),
        (["a/1.jpg", "a/2.jpg"], {"a": 2}),
        (["a/b/1.jpg", "a/c/2.jpg", "a/c/d/3.jpg"], {"a/b": 1, "a/c": 2}),
        (["a/b/1.jpg", "a/2.jpg"], {"a": 2}),
        (["a/b/c/1.jpg", "a/b/c/2.jpg"], {"a/b/c": 2}),
    ],
)
def test_folders_are_of_the_first_level_that_tells_pictures_apart(
    ids: list[str], found: dict[str, int]
) -> None:
    assert by_folder(ids) == found
