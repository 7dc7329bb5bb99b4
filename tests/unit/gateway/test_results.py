"""Filters, details, pages, the cut-off and collapsed duplicates, on in-memory fakes."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Match
from gateway.search import cutoff
from gateway.search.collapse import collapse
from gateway.search.filters import Filters
from gateway.search.ranking import rank
from tests.support.gateway_on_fakes import (
    WHEN,
    Gateway,
    assert_problem,
    gateway,
    image_record,
    unit,
)


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    """Pictures on an arc: the query `image_name: here.jpg` finds 000.jpg first, then 001.jpg …"""
    records = [image_record("here.jpg", unit(1))] + [
        image_record(
            f"{'even' if n % 2 == 0 else 'odd'}/{n:03}.jpg",
            unit(np.cos(0.3 + n / 400), np.sin(0.3 + n / 400)),
            width=n,
            sha256=f"{n:064x}",
            taken_at=WHEN + timedelta(days=n) if n % 3 == 0 else None,
            camera="Ricoh GR" if n % 5 == 0 else None,
            latitude=1.0 if n % 7 == 0 else None,
            longitude=1.0 if n % 7 == 0 else None,
        )
        for n in range(250)
    ]
    async with gateway(tmp_path, small_spec, records) as bench:
        yield bench


HERE = {"image_name": "here.jpg", "limit": 1000}


def numbers(names: list[str]) -> list[int]:
    return [int(name.split("/")[1].split(".")[0]) for name in names]


def joined(pages: list[list[str]]) -> list[str]:
    return [name for page in pages for name in page]


class TestFilters:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("filters", "wanted"),
        [
            ({}, lambda n: True),
            ({"folder": "odd"}, lambda n: n % 2 == 1),
            ({"folder": "/odd/"}, lambda n: n % 2 == 1),
            ({"folder": ""}, lambda n: True),
            ({"folder": "od"}, lambda n: False),
            ({"media_type": ["image/png"]}, lambda n: False),
            ({"width": {"min": 10, "max": 20}}, lambda n: 10 <= n <= 20),
            ({"width": {"max": 20}, "folder": "even"}, lambda n: n <= 20 and n % 2 == 0),
            ({"size_bytes": {"min": 1001}}, lambda n: False),
            ({"camera": " Ricoh GR "}, lambda n: n % 5 == 0),
            ({"has_gps": True}, lambda n: n % 7 == 0),
            ({"has_gps": False}, lambda n: n % 7 != 0),
            ({"taken_at": {"from": "2026-01-08"}}, lambda n: n % 3 == 0 and n >= 3),
            ({"taken_at": {"to": "2026-01-08T01:00:00+01:00"}}, lambda n: n in (0, 3)),
            ({"added_at": {"from": "2026-01-05T00:00:01Z"}}, lambda n: False),
        ],
    )
    async def test_filters_select_the_matching_images(
        self, bench: Gateway, filters: dict[str, Any], wanted: Any
    ) -> None:
        names = await bench.names(**HERE, filters=filters)
        assert numbers(names) == [n for n in range(250) if wanted(n)]

    @pytest.mark.parametrize(
        ("filters", "field"),
        [
            ({"colour": "red"}, "filters.colour"),
            ({"width": {"min": 3, "max": 2}}, "filters.width"),
            ({"width": {"min": -1}}, "filters.width.min"),
            ({"width": {"min": "3"}}, "filters.width.min"),
            ({"width": {"min": 2.5}}, "filters.width.min"),
            ({"taken_at": {"from": "yesterday"}}, "filters.taken_at.from"),
            ({"taken_at": {"from": 7}}, "filters.taken_at.from"),
            ({"taken_at": {"from": "7"}}, "filters.taken_at.from"),
            ({"taken_at": {"from": "1.5e-3"}}, "filters.taken_at.from"),
            ({"taken_at": {"from": "2026-02-01", "to": "2026-01-01"}}, "filters.taken_at"),
            ({"has_gps": "yes"}, "filters.has_gps"),
            ({"camera": "  "}, "filters.camera"),
            ({"media_type": []}, "filters.media_type"),
            ({"folder": "a\0b"}, "filters.folder"),
            ("odd", "filters"),
        ],
    )
    async def test_an_invalid_filter_is_named(
        self, bench: Gateway, filters: Any, field: str
    ) -> None:
        assert_problem(await bench.search(text="x", filters=filters), 422, field)

    @pytest.mark.slow
    async def test_filters_are_in_the_search_event(self, bench: Gateway) -> None:
        await bench.search(
            text="x",
            filters={"folder": "odd", "width": {"min": 3}, "media_type": ["a/b", "c/d"]},
            min_score=-0.5,
            cut_off="auto",
        )
        (event,) = await _events(bench, 1)
        assert event.filters == {
            "folder": "odd/",
            "width.min": 3,
            "media_type": "a/b,c/d",
            "min_score": -0.5,
            "cut_off": "auto",
        }

    def test_times_are_serialised_as_written(self) -> None:
        filters = Filters.model_validate({"taken_at": {"from": "2026-01-01T10:00:00+02:00"}})
        assert filters.flat() == {"taken_at.from": "2026-01-01T10:00:00+02:00"}


async def _events(bench: Gateway, count: int) -> Any:
    import asyncio

    for _ in range(200):
        if len(found := await bench.searches()) >= count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("the events did not come")


class TestDetails:
    @pytest.mark.slow
    async def test_requested_details_are_returned(self, bench: Gateway) -> None:
        body = {**HERE, "limit": 1, "include": ["width", "taken_at", "sha256", "width"]}
        (match,) = await bench.found(**body)
        assert match == {
            "image_name": "even/000.jpg",
            "score": pytest.approx(np.cos(0.3), abs=1e-5),
            "width": 0,
            "taken_at": "2026-01-05T00:00:00Z",
            "sha256": "0" * 64,
        }
        (_, match) = await bench.found(**{**body, "limit": 2})
        assert match["taken_at"] is None

    async def test_other_details_are_refused(self, bench: Gateway) -> None:
        for name in ("uri", "vector", "", 7):
            assert_problem(await bench.search(text="x", include=[name]), 422, "include.0")


class TestPages:
    async def pages(self, bench: Gateway, limit: int, **body: Any) -> list[list[str]]:
        pages, cursor = [], None
        while True:
            requested = {**HERE, **body, "limit": limit, "paged": True}
            if cursor is not None:
                requested["cursor"] = cursor
            response = await bench.search(**requested)
            assert response.status_code == 200, response.text
            pages.append([match["image_name"] for match in response.json()["matches"]])
            cursor = response.json()["next_cursor"]
            if cursor is None:
                return pages

    @pytest.mark.slow
    @pytest.mark.parametrize("limit", [1, 7, 50, 99, 100, 125, 249, 250, 1000])
    async def test_pages_together_contain_each_match_once(self, bench: Gateway, limit: int) -> None:
        if limit == 1:
            pages = await self.pages(bench, 1, filters={"width": {"max": 9}})
            assert numbers(joined(pages)) == list(range(10))
            return
        pages = await self.pages(bench, limit)
        assert numbers(joined(pages)) == list(range(250))
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1]

    @pytest.mark.slow
    async def test_pages_work_with_filters_cut_off_and_min_score(self, bench: Gateway) -> None:
        options = {"filters": {"folder": "odd"}, "cut_off": "auto", "min_score": 0.8}
        pages = await self.pages(bench, 9, **options)
        whole = await bench.names(**HERE, **options)
        assert joined(pages) == whole
        assert 9 < len(whole) < 125

    async def test_an_empty_answer_is_the_last_page(self, bench: Gateway) -> None:
        assert await self.pages(bench, 5, filters={"folder": "nowhere"}) == [[]]

    @pytest.mark.slow
    async def test_pages_of_an_index_with_changing_order_repeat_and_skip_nothing(self) -> None:
        """A search for more may find better ones that a search for few missed."""
        chance = random.Random(7)
        everything = [Match(f"{n:05}.jpg", 1 - n / 20_000) for n in range(12_000)]
        answers: dict[int, list[Match]] = {}

        async def search(limit: int) -> Sequence[Match]:
            if limit not in answers:
                missed = set(chance.sample(range(limit), limit // 20))
                seen = [match for n, match in enumerate(everything) if n not in missed]
                answers[limit] = seen[:limit]
            return answers[limit]

        async def clean(order: Sequence[Match]) -> list[Match]:
            return list(order)

        met: list[str] = []
        while page := (await rank(search, clean, needed=len(met) + 25))[len(met) :][:24]:
            met += [match.image_id for match in page]
        assert len(met) == len(set(met)) >= 10_000
        assert set(met) >= {match.image_id for found in answers.values() for match in found}

    @pytest.mark.slow
    async def test_a_cursor_is_valid_for_its_own_search_only(self, bench: Gateway) -> None:
        body = {**HERE, "limit": 5, "paged": True}
        cursor = (await bench.search(**body)).json()["next_cursor"]
        other = {**body, "limit": 9, "cursor": cursor}
        assert numbers(await bench.names(**other)) == list(range(5, 14))
        for changes in (
            {"image_name": "even/000.jpg"},
            {"filters": {"folder": "odd"}},
            {"min_score": 0.1},
            {"cut_off": "auto"},
            {"collapse_duplicates": True},
            {"cursor": cursor[:-3] + "AAA"},
            {"cursor": "x"},
            {"cursor": ""},
        ):
            answer = await bench.search(**{**body, "cursor": cursor, **changes})
            assert_problem(answer, 422, "cursor")

    @pytest.mark.slow
    async def test_a_receipt_is_refused_as_a_cursor(self, bench: Gateway) -> None:
        receipt = (await bench.search(**HERE)).json()["jwt"]
        assert_problem(await bench.search(**HERE, cursor=receipt), 422, "cursor")


class TestCutOff:
    def test_the_cut_off_is_half_way_from_the_background_to_the_best(self) -> None:
        assert cutoff.cut_off_score(0.5, [0.1, 0.1, 0.4], 0.0) == pytest.approx(0.3)
        assert cutoff.cut_off_score(0.5, [0.1, 0.1, 0.4], 0.35) == 0.35
        assert cutoff.cut_off_score(0.5, [], 0.2) == 0.2

    @pytest.mark.slow
    async def test_matches_that_do_not_stand_out_are_cut_off(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        near = [image_record(f"near/{n}.jpg", unit(1, 0.1 * n)) for n in range(4)]
        far = [image_record(f"far/{n}.jpg", unit(0.1, 1, n)) for n in range(60)]
        async with gateway(tmp_path, small_spec, [*near, *far]) as bench:
            body = {"image_name": "near/0.jpg", "limit": 100}
            assert len(await bench.names(**body)) == 63
            answer = (await bench.search(**body, cut_off="auto")).json()
            names = [match["image_name"] for match in answer["matches"]]
            assert names == ["near/1.jpg", "near/2.jpg", "near/3.jpg"]
            assert 0.3 < answer["cut_off_score"] < 0.9
            assert "cut_off_score" not in (await bench.search(**body, cut_off="none")).json()

    @pytest.mark.slow
    async def test_the_cut_off_of_an_empty_collection(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec) as bench:
            answer = (await bench.search(text="x", cut_off="auto")).json()
            assert (answer["matches"], answer["cut_off_score"]) == ([], None)

    async def test_an_unknown_cut_off_is_refused(self, bench: Gateway) -> None:
        assert_problem(await bench.search(text="x", cut_off="maybe"), 422, "cut_off")


class TestCollapse:
    @pytest.mark.slow
    async def test_near_duplicates_are_collapsed_under_the_best(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        records = [
            image_record(
                f"{group}/{copy}.jpg", unit(np.cos(group * 0.35), np.sin(group * 0.35), copy / 1000)
            )
            for group in range(5)
            for copy in range(3)
        ]
        async with gateway(tmp_path, small_spec, records) as bench:
            body = {"image_name": "0/0.jpg", "collapse_duplicates": True}
            found = await bench.found(**body, limit=4)
            # The query's own picture is left out before; its copies stand for themselves.
            assert [match["image_name"] for match in found] == [
                "0/1.jpg", "1/0.jpg", "2/0.jpg", "3/0.jpg"
            ]  # fmt: skip
            assert [match["duplicates"] for match in found] == [
                ["0/2.jpg"],
                *([f"{n}/1.jpg", f"{n}/2.jpg"] for n in (1, 2, 3)),
            ]
            first = (await bench.search(**body, limit=4, paged=True)).json()
            rest = await bench.names(**body, limit=4, cursor=first["next_cursor"])
            assert rest == ["4/0.jpg"]

    @pytest.mark.slow
    @given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0.5, 0.999))
    async def test_a_longer_answer_starts_with_a_shorter_one(
        self, seed: int, count: int, least: float
    ) -> None:
        generator = np.random.default_rng(seed)
        vectors = generator.normal(size=(count, 3))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        order = [Match(f"{n}", 1 - n / 100, vector=v.tolist()) for n, v in enumerate(vectors)]
        whole = await collapse(order, least)
        part = await collapse(order[: count // 2], least)
        kept = [each.match.image_id for each in whole]
        assert kept[: len(part)] == [each.match.image_id for each in part]
        everything = [*kept, *(name for each in whole for name in each.duplicates)]
        assert sorted(everything, key=int) == [match.image_id for match in order]
        held = np.array([each.match.vector for each in whole])
        alike = held @ held.T - 2 * np.eye(len(held))
        assert alike.max() < least + 1e-6
