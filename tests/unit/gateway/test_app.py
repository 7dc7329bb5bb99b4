"""The HTTP API on in-memory servers: shapes, errors, events."""

import asyncio
import base64
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import ImageRecord
from adapters.log.fake import FakeEventLog
from gateway.app import create_app
from gateway.http.static import WEB
from gateway.search.events import SearchEvents
from gateway.settings import GatewaySettings
from schemas.codec import decode
from schemas.events import FeedbackGiven, SearchKind, SearchPerformed, SearchTimings
from schemas.topics import FEEDBACK, SEARCHES
from tests.support.gateway_on_fakes import image_record, unit

SEARCH, RATE, HEALTH = "/api/v1/search-image", "/api/v1/create-feedback", "/api/v1/healthcheck"
WHEN = datetime(2026, 1, 5, tzinfo=UTC)
SECRET = "a secret of at least thirty-two bytes"


@dataclass
class Bench:
    """A gateway on in-memory fakes with 15 pictures in its collection."""

    app: FastAPI
    client: httpx.AsyncClient
    embedder: FakeEmbedder
    index: FakeImageIndex
    log: FakeEventLog
    images: Path

    async def search(self, **body: Any) -> httpx.Response:
        return await self.client.post(SEARCH, json=body)

    async def receipt(self) -> str:
        token: str = (await self.search(text="tennis")).json()["jwt"]
        return token

    async def holds(self, name: str) -> None:
        """Have the index hold a picture of this name, whatever its file is."""
        collection = await self.index.active()
        assert collection is not None
        await self.index.upsert(collection, [image_record(name, unit(1))])

    async def searches(self) -> list[SearchPerformed]:
        return [decode(SearchPerformed, r.value) async for r in self.log.read_all(SEARCHES)]

    async def ratings(self) -> list[FeedbackGiven]:
        return [decode(FeedbackGiven, r.value) async for r in self.log.read_all(FEEDBACK)]


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Bench]:
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    index, log = FakeImageIndex(), FakeEventLog()
    collection = await index.ensure_collection(small_spec)
    vectors = await embedder.embed_texts(small_spec.name, [f"text {n}" for n in range(15)])
    await index.upsert(
        collection,
        [
            ImageRecord(
                image_id=f"folder/{n}.jpg",
                uri="file:///x",
                sha256=f"{n:064x}",
                media_type="image/jpeg",
                size_bytes=1,
                width=1,
                height=1,
                modified_at=WHEN,
                added_at=WHEN,
                vector=vector.tolist(),
            )
            for n, vector in enumerate(vectors)
        ],
    )
    await index.activate(collection)
    images = tmp_path / "images"
    images.mkdir()
    settings = GatewaySettings(
        jwt_secret=SecretStr(SECRET),
        images_dir=images,
        max_body_bytes=20_000,
        request_timeout=60.0,
        outage_patience=0,
    )
    app = create_app(settings, embedder, index, log)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield Bench(app, client, embedder, index, log, images)


def assert_problem(response: httpx.Response, status: int, field: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    if field is not None:
        assert field in [error["field"] for error in body["errors"]]


async def flushed(bench: Bench, count: int) -> list[SearchPerformed]:
    for _ in range(200):
        if len(found := await bench.searches()) >= count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("the events did not come")


class TestSearch:
    @pytest.mark.slow
    async def test_the_answer_has_exactly_its_shape(self, bench: Bench) -> None:
        response = await bench.search(text="text 3")
        assert response.status_code == 200
        answer = response.json()
        assert list(answer) == ["text", "model_name", "matches", "jwt"]
        assert (answer["text"], answer["model_name"]) == ("text 3", "small")
        assert len(answer["matches"]) == 10
        assert all(list(match) == ["image_name", "score"] for match in answer["matches"])
        assert answer["matches"][0]["image_name"] == "folder/3.jpg"
        assert answer["matches"][0]["score"] == pytest.approx(1.0, abs=1e-5)
        scores = [match["score"] for match in answer["matches"]]
        assert scores == sorted(scores, reverse=True)

    @pytest.mark.slow
    @pytest.mark.parametrize(("limit", "found"), [(1, 1), (15, 15), (1000, 15)])
    async def test_limit(self, bench: Bench, limit: int, found: int) -> None:
        assert len((await bench.search(text="x", limit=limit)).json()["matches"]) == found

    @pytest.mark.parametrize("limit", [0, -1, 1001, "5", 2.5, True, None, 10**30])
    async def test_an_invalid_limit_is_named(self, bench: Bench, limit: object) -> None:
        assert_problem(await bench.search(text="x", limit=limit), 422, "limit")

    @pytest.mark.parametrize(
        "text", ["", "   ", "a\x00b", "a\x1bb", "x" * 2001, "x" * 10_000, 7, None, ["x"]]
    )
    async def test_an_invalid_text_is_named(self, bench: Bench, text: object) -> None:
        assert_problem(await bench.search(text=text), 422, "text")

    async def test_a_lone_surrogate_is_refused(self, bench: Bench) -> None:
        headers = {"Content-Type": "application/json"}
        body = b'{"text": "a\\ud800b"}'
        response = await bench.client.post(SEARCH, content=body, headers=headers)
        assert_problem(response, 422, "text")

    async def test_unknown_and_missing_fields_are_named(self, bench: Bench) -> None:
        assert_problem(await bench.search(text="x", colour="red"), 422, "colour")
        assert_problem(await bench.search(limit=3), 422, "text")

    @pytest.mark.parametrize("body", [b"", b"{", b"[1,", b"\xff\xfe", b'{"text": nope}'])
    async def test_a_body_that_is_not_json_is_refused(self, bench: Bench, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        response = await bench.client.post(SEARCH, content=body, headers=headers)
        assert response.status_code in (400, 422)
        assert_problem(response, response.status_code)

    @pytest.mark.parametrize("body", [b"[]", b'"x"', b"7", b"null", b"NaN"])
    async def test_json_that_is_not_an_object_is_refused(self, bench: Bench, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        response = await bench.client.post(SEARCH, content=body, headers=headers)
        assert response.status_code in (400, 422)
        assert_problem(response, response.status_code)

    async def test_a_body_that_is_too_large_is_refused(self, bench: Bench) -> None:
        assert_problem(await bench.search(text="x" * 30_000), 413)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 1000

        assert_problem(await bench.client.post(SEARCH, content=chunks()), 413)

    async def test_wrong_methods_and_paths_are_refused(self, bench: Bench) -> None:
        assert_problem(await bench.client.get(SEARCH), 405)
        assert_problem(await bench.client.get("/api/v1/nothing"), 404)

    @pytest.mark.slow
    @pytest.mark.parametrize("server", ["embedder", "index"])
    async def test_a_server_that_is_down_is_reported_until_it_returns(
        self, bench: Bench, server: str
    ) -> None:
        await asyncio.sleep(1.1)  # A resolved alias is trusted for a second.
        fake = getattr(bench, server)
        fake.available = False
        response = await bench.search(text="never asked before")
        assert_problem(response, 503)
        assert response.headers["retry-after"]
        fake.available = True
        assert (await bench.search(text="never asked before")).status_code == 200

    async def test_vectors_of_another_model_version_are_never_used(
        self, bench: Bench, small_spec: ModelSpec
    ) -> None:
        other = small_spec.model_copy(update={"version": "ffffffffffff"})
        bench.embedder.served = {small_spec.name: other}
        response = await bench.search(text="x")
        assert_problem(response, 503)
        assert "ffffffffffff" in response.json()["detail"]

    async def test_a_repeated_query_is_embedded_once(self, bench: Bench) -> None:
        await bench.search(text="again")
        calls = bench.embedder.text_calls
        await bench.search(text="again")
        assert bench.embedder.text_calls == calls


class TestQueries:
    """By picture, by an indexed picture, and weighted combinations of these."""

    async def vector(self, bench: Bench, number: int) -> Any:
        found = await bench.index.vectors(
            bench.index.collections["Images_small_0123456789ab"], [f"folder/{number}.jpg"]
        )
        return np.array(found[f"folder/{number}.jpg"])

    async def test_a_search_by_an_indexed_image(self, bench: Bench) -> None:
        answer = (await bench.search(image_name="folder/3.jpg", limit=14)).json()
        assert answer["text"] == "./folder/3.jpg"
        names = [match["image_name"] for match in answer["matches"]]
        assert len(names) == 14
        assert "folder/3.jpg" not in names
        own = await self.vector(bench, 3)
        for match in answer["matches"]:
            number = int(match["image_name"].split("/")[1].split(".")[0])
            expected = float(own @ await self.vector(bench, number))
            assert match["score"] == pytest.approx(expected, abs=1e-5)
        (event,) = await flushed(bench, 1)
        assert event.kind == SearchKind.SIMILAR

    @pytest.mark.slow
    async def test_a_search_by_an_image(self, bench: Bench) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (30, 30), "green").save(buffer, "PNG")
        body = {"image": base64.b64encode(buffer.getvalue()).decode(), "limit": 3}
        calls = bench.embedder.image_calls
        answer = (await bench.search(**body)).json()
        assert answer["text"] == "(picture)"
        assert len(answer["matches"]) == 3
        assert bench.embedder.image_calls == calls + 1
        (event,) = await flushed(bench, 1)
        assert (event.kind, event.text) == (SearchKind.IMAGE, None)

    @pytest.mark.slow
    async def test_terms_are_a_weighted_sum_of_directions(self, bench: Bench) -> None:
        terms = [
            {"text": "text 1", "weight": 2},
            {"image_name": "folder/5.jpg"},
            {"text": "text 9", "weight": -0.5},
        ]
        answer = (await bench.search(terms=terms, limit=15)).json()
        assert answer["text"] == "2:text 1 + ./folder/5.jpg - 0.5:text 9"
        combined = (
            2 * await self.vector(bench, 1)
            + await self.vector(bench, 5)
            - 0.5 * await self.vector(bench, 9)
        )
        combined /= np.linalg.norm(combined)
        scores = {match["image_name"]: match["score"] for match in answer["matches"]}
        assert scores["folder/1.jpg"] == pytest.approx(
            float(combined @ await self.vector(bench, 1)), abs=1e-5
        )
        assert max(scores, key=lambda name: scores[name]) == "folder/1.jpg"
        (event,) = await flushed(bench, 1)
        assert event.kind == SearchKind.TERMS

    @pytest.mark.slow
    async def test_matches_below_min_score_are_omitted(self, bench: Bench) -> None:
        everything = (await bench.search(text="text 4", limit=15)).json()["matches"]
        bound = everything[4]["score"]
        answer = (await bench.search(text="text 4", limit=15, min_score=bound)).json()
        assert answer["matches"] == everything[:5]
        assert (await flushed(bench, 2))[-1].filters in ({"min_score": bound}, {})

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "text"),
            ({"text": "a", "image_name": "b"}, "text"),
            ({"terms": []}, "terms"),
            ({"terms": [{"weight": 1}]}, "terms.0"),
            ({"terms": [{"text": "a", "image_name": "b"}]}, "terms.0"),
            ({"terms": [{"text": "a", "weight": 0}]}, "terms.0"),
            ({"terms": [{"text": "a", "weight": 1e9}]}, "terms.0.weight"),
            ({"terms": [{"text": "a"}] * 17}, "terms"),
            ({"terms": [{"text": "a"}, {"text": "a", "weight": -1}]}, "terms"),
            ({"image_name": "never.jpg"}, "image_name"),
            ({"terms": [{"text": "a"}, {"image_name": "never.jpg"}]}, "terms.1"),
            ({"image": "bm8gcGljdHVyZQ=="}, "image"),
            ({"image": "not base64!"}, "image"),
            ({"text": "a", "min_score": 7}, "min_score"),
        ],
    )
    async def test_an_invalid_parameter_is_named(
        self, bench: Bench, body: dict[str, Any], field: str
    ) -> None:
        assert_problem(await bench.search(**body), 422, field)

    async def test_a_weight_that_is_not_a_number_is_refused(self, bench: Bench) -> None:
        headers = {"Content-Type": "application/json"}
        for weight in (b"NaN", b"Infinity", b"1e999"):
            body = b'{"terms": [{"text": "a", "weight": ' + weight + b"}]}"
            response = await bench.client.post(SEARCH, content=body, headers=headers)
            assert response.status_code in (400, 422)
            assert_problem(response, response.status_code)


class TestSearchEvents:
    @pytest.mark.slow
    async def test_the_search_event_contains_the_answer(self, bench: Bench) -> None:
        answer = (await bench.search(text="text 7", limit=3)).json()
        (event,) = await flushed(bench, 1)
        assert (event.kind, event.text, event.limit) == (SearchKind.TEXT, "text 7", 3)
        assert (event.model_name, event.model_version) == ("small", "0123456789ab")
        assert event.collection == "Images_small_0123456789ab"
        assert [r.model_dump() for r in event.results] == answer["matches"]
        assert event.latency_ms.total >= event.latency_ms.query > 0

    async def test_an_outage_delays_events_not_answers(self, bench: Bench) -> None:
        bench.log.available = False
        for number in range(5):
            assert (await bench.search(text=f"text {number}")).status_code == 200
        bench.log.available = True
        assert {event.text for event in await flushed(bench, 5)} == {
            f"text {number}" for number in range(5)
        }

    async def test_a_full_buffer_drops_and_counts(self) -> None:
        log = FakeEventLog(available=False)
        events = SearchEvents(log, capacity=3)
        for _ in range(10):
            events.add(a_search())
        assert events.dropped == 7

    @pytest.mark.slow
    async def test_stopping_publishes_buffered_events(self) -> None:
        log = FakeEventLog()
        events = SearchEvents(log, capacity=1000)
        events.start()
        for _ in range(700):
            events.add(a_search())
        await events.stop()
        assert len([record async for record in log.read_all(SEARCHES)]) == 700


def a_search() -> SearchPerformed:
    return SearchPerformed(
        search_id=UUID("7f8f42f4-5b0e-4a4b-8d67-000000000001"),
        kind=SearchKind.TEXT,
        text="x",
        limit=1,
        model_name="small",
        model_version="0123456789ab",
        collection="c",
        results=(),
        latency_ms=SearchTimings(embed=1, query=1, total=2),
    )


class TestFeedback:
    @pytest.mark.slow
    async def test_a_rating_is_stored_with_its_search(self, bench: Bench) -> None:
        answer = (await bench.search(text="text 2")).json()
        response = await bench.client.post(
            RATE, json={"user_feedback": 9, "jwt": answer["jwt"], "image_name": "folder/2.jpg"}
        )
        assert response.status_code == 200
        (event,) = await bench.ratings()
        (searched,) = await flushed(bench, 1)
        assert response.json() == {"status": "stored", "search_id": str(event.search_id)}
        assert event.search_id == searched.search_id
        assert (event.rating, event.text, event.model_name) == (9, "text 2", "small")
        assert (event.image_name, event.top_image) == ("folder/2.jpg", "folder/2.jpg")

    @pytest.mark.slow
    @pytest.mark.parametrize("rating", [1, 10])
    async def test_both_ends_of_the_scale_are_accepted(self, bench: Bench, rating: int) -> None:
        token = await bench.receipt()
        response = await bench.client.post(RATE, json={"user_feedback": rating, "jwt": token})
        assert response.status_code == 200

    @pytest.mark.slow
    @pytest.mark.parametrize("rating", [0, 11, -3, 5.5, "5", True, None, 10**40])
    async def test_a_rating_off_the_scale_is_named(self, bench: Bench, rating: object) -> None:
        token = await bench.receipt()
        response = await bench.client.post(RATE, json={"user_feedback": rating, "jwt": token})
        assert_problem(response, 422, "user_feedback")
        assert_problem(await bench.client.post(RATE, json={"jwt": token}), 422, "user_feedback")
        assert await bench.ratings() == []

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "change", [lambda t: t[:-5] + "AAAAA", lambda _: "x", lambda t: t + "."]
    )
    async def test_an_invalid_receipt_is_refused(self, bench: Bench, change: Any) -> None:
        token = change(await bench.receipt())
        response = await bench.client.post(RATE, json={"user_feedback": 5, "jwt": token})
        assert_problem(response, 401, "jwt")
        assert "www-authenticate" in response.headers
        assert await bench.ratings() == []

    async def test_a_rating_is_acknowledged_only_when_stored(self, bench: Bench) -> None:
        token = await bench.receipt()
        bench.log.available = False
        response = await bench.client.post(RATE, json={"user_feedback": 5, "jwt": token})
        assert_problem(response, 503)
        bench.log.available = True  # else the gateway waits for it when it stops


class TestHealth:
    async def test_health_is_ok_when_all_servers_are_up(self, bench: Bench) -> None:
        response = await bench.client.get(HEALTH)
        assert response.status_code == 200
        body = response.json()
        assert body["status"] == "ok"
        assert (body["model_name"], body["images"]) == ("small", 15)

    @pytest.mark.parametrize(
        ("server", "named"), [("embedder", "model"), ("index", "weaviate"), ("log", "kafka")]
    )
    async def test_an_unavailable_server_is_named(
        self, bench: Bench, server: str, named: str
    ) -> None:
        getattr(bench, server).available = False
        response = await bench.client.get(HEALTH)
        assert_problem(response, 503)
        assert named in response.json()["missing"]


class TestImages:
    async def test_an_image_is_served_safely(self, bench: Bench) -> None:
        name = "été/a b#1 🎾.png"
        (bench.images / "été").mkdir()
        Image.new("RGB", (4, 4)).save(bench.images / name)
        await bench.holds(name)
        response = await bench.client.get(
            httpx.URL("http://localhost/images/").join(
                "/images/" + "/".join(quote(part, safe="") for part in name.split("/"))
            )
        )
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/png"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["etag"]
        assert "sandbox" in response.headers["content-security-policy"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "path",
        [
            "../secret.png",
            "%2e%2e/secret.png",
            "..%2fsecret.png",
            "a/../../secret.png",
            "/etc/passwd",
            "link.png",
            "linked/secret.png",
            "a%00.png",
            "",
            "folder",
            "page.html",
            "drawing.svg",
            "text.png",
            "nothing.png",
            "x" * 5000,
        ],
    )
    async def test_other_files_are_not_served(self, bench: Bench, path: str) -> None:
        outside = bench.images.parent
        Image.new("RGB", (4, 4)).save(outside / "secret.png")
        (bench.images / "folder").mkdir()
        (bench.images / "link.png").symlink_to(outside / "secret.png")
        (bench.images / "linked").symlink_to(outside)
        (bench.images / "page.html").write_text("<script>alert(1)</script>")
        (bench.images / "drawing.svg").write_text("<svg><script>alert(1)</script></svg>")
        (bench.images / "text.png").write_text("<script>alert(1)</script>")
        await bench.holds(unquote(path))
        assert_problem(await bench.client.get(f"/images/{path}"), 404)


class TestPage:
    async def test_the_page_is_served_with_a_strict_policy(self, bench: Bench) -> None:
        for path in ("/", "/web/app.js", "/web/style.css", "/web/icon.svg"):
            response = await bench.client.get(path)
            assert response.status_code == 200
            policy = response.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
        assert_problem(await bench.client.get("/web/index.html"), 404)
        assert_problem(await bench.client.get("/web/..%2fapp.py"), 404)

    def test_the_page_names_no_other_host_and_has_no_inline_code(self) -> None:
        for file in WEB.iterdir():
            text = file.read_text()
            hosts = set(re.findall(r"https?://[^/\"')\s]+", text))
            assert hosts <= {"http://www.w3.org"}, file.name
            if file.suffix == ".html":
                assert not re.search(r"\son\w+=|<style|<script(?![^>]*\ssrc=)|style=", text)
                assert 'lang="en"' in text
