"""Receipts, cursors, cookies and files: what is valid is accepted, anything else is refused."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Collection
from adapters.log.port import Message
from gateway.auth.cursors import Cursors
from gateway.auth.receipts import Receipt, Receipts
from gateway.http.api_models import MAX_CURSOR, MAX_NAME, SearchRequest
from gateway.http.credentials import COOKIE, cookie_credential
from gateway.routes.feedback import FeedbackRequest
from gateway.search.query import describe
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ
from tests.support.gateway_on_fakes import SECRET, Gateway, assert_problem, gateway, png

KEY = "a-key-of-sixteen-characters"
VALUE = base64.urlsafe_b64encode(KEY.encode()).decode()
WIDE = st.text(st.sampled_from('a😀"\\é漢'), min_size=1, max_size=2000)


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec) as found:
        yield found


def longest(text: str, terms: int) -> SearchRequest:
    text = (text * 2000)[:2000].strip() or "a"
    return SearchRequest.model_validate({"terms": [{"text": text, "weight": -99.25}] * terms})


@pytest.mark.slow
@settings(max_examples=30)
@given(WIDE, st.integers(1, 16), st.text(st.sampled_from("a😀\x01\n/"), min_size=1, max_size=4096))
def test_the_receipt_of_any_search_can_be_rated(text: str, terms: int, name: str) -> None:
    receipts = Receipts(SECRET, lifetime_seconds=60)
    request = longest(text, terms)
    token = receipts.sign(
        Receipt(uuid4(), describe(request.as_terms()), "m" * 200, name, 0.5, datetime.now(UTC))
    )
    accepted = FeedbackRequest.model_validate({"user_feedback": 5, "jwt": token})
    assert receipts.check(accepted.jwt).top_image == name


def test_the_receipt_of_the_longest_image_names_can_be_rated() -> None:
    receipts = Receipts(SECRET, lifetime_seconds=60)
    name = "\x01" * MAX_NAME
    terms = [{"image_name": name, "weight": -99.25}] * 16
    text = describe(SearchRequest.model_validate({"terms": terms}).as_terms())
    token = receipts.sign(Receipt(uuid4(), text, "m" * 200, name, 0.5, datetime.now(UTC)))
    FeedbackRequest.model_validate({"user_feedback": 5, "jwt": token})


@pytest.mark.slow
async def test_a_long_search_is_rated_over_http(bench: Gateway) -> None:
    found = await bench.search(terms=[{"text": "😀" * 2000}] * 16)
    assert found.status_code == 200, found.text
    rated = await bench.client.post(
        "/api/v1/create-feedback", json={"user_feedback": 7, "jwt": found.json()["jwt"]}
    )
    assert rated.status_code == 200, rated.text


@given(st.text(st.sampled_from("a😀\x01/"), min_size=1, max_size=MAX_NAME))
def test_the_cursor_to_any_image_is_accepted(name: str) -> None:
    cursor = Cursors(SECRET).sign("0" * 64, name)
    assert len(cursor) <= MAX_CURSOR
    assert Cursors(SECRET).check(cursor, "0" * 64) == name


@pytest.mark.parametrize(
    "other",
    [
        'settings={"theme": "dark", "list": [1, 2]}',
        "name=two words",
        "broken",
        "=nameless",
        "; ;",
        'quoted="a;b"',
        "ümlaut=ä",
        "a=b=c",
        "$Version=1",
        f"x{COOKIE}=no",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_other_cookies_do_not_hide_the_key(other: str, first: bool) -> None:
    own = f"{COOKIE}={VALUE}"
    header = f"{other}; {own}" if first else f"{own}; {other}"
    raw = [(b"cookie", header.encode("utf-8"))]
    assert cookie_credential(Headers(raw=raw)) == KEY


def test_a_key_in_a_second_cookie_header_is_found() -> None:
    raw = [(b"cookie", b"a=b"), (b"cookie", f'{COOKIE}="{VALUE}"'.encode())]
    assert cookie_credential(Headers(raw=raw)) == KEY


@pytest.mark.parametrize("value", ["", "%%%", "////", "_w=="])
def test_a_cookie_that_is_not_a_key_is_ignored(value: str) -> None:
    assert cookie_credential(Headers({"cookie": f"{COOKIE}={value}"})) == ""


@pytest.mark.slow
async def test_the_api_documentation_loads_nothing_from_other_hosts(bench: Gateway) -> None:
    page = await bench.client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{name}" in page.text
        asset = await bench.client.get(f"/docs/{name}")
        assert asset.status_code == 200
        assert len(asset.content) > 100
    other = await bench.client.get("/redoc")
    assert (other.status_code, other.headers["location"]) == (307, "/docs")
    assert "Image search" in json.dumps((await bench.client.get("/openapi.json")).json())


def put(bench: Gateway, name: str) -> None:
    target = bench.images / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [".hidden.png", ".private/a.png", "draft.png", "a~.png", "@eaDir/a.png", "./a.png"]
)
@pytest.mark.parametrize("route", ["images", "thumbnails"])
async def test_a_file_that_is_not_indexed_is_not_served(
    bench: Gateway, route: str, name: str
) -> None:
    put(bench, name)
    put(bench, "a.png")
    await bench.holds("a.png")
    path = quote(name) if not name.startswith("./") else "%2e/a.png"
    assert_problem(await bench.client.get(f"/{route}/{path}"), 404)
    assert (await bench.client.get(f"/{route}/a.png")).status_code == 200


async def test_an_image_is_no_longer_served_once_it_left_the_index(bench: Gateway) -> None:
    put(bench, "a.png")
    await bench.holds("a.png")
    assert (await bench.client.get("/images/a.png")).status_code == 200
    await bench.index.delete(bench.collection, ["a.png"])
    assert_problem(await bench.client.get("/images/a.png"), 404)


async def test_an_image_with_an_open_dead_letter_is_served(bench: Gateway) -> None:
    put(bench, "odd.png")
    letter = DeadLetter(
        image_id="odd.png",
        error_class="Rejected",
        reason="too odd",
        attempts=1,
        source_topic="images",
        source_partition=0,
        source_offset=0,
    )
    await bench.log.publish(IMAGES_DLQ, [Message("odd.png", letter)])
    assert (await bench.client.get("/images/odd.png")).status_code == 200


async def test_no_image_is_served_while_the_index_is_down(bench: Gateway) -> None:
    put(bench, "a.png")
    await bench.holds("a.png")
    bench.index.available = False
    assert_problem(await bench.client.get("/images/a.png"), 503)


@pytest.mark.slow
async def test_simultaneous_image_requests_share_index_queries(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n}.png" for n in range(60)]
    for name in names:
        put(bench, name)
    await bench.holds(*names)
    requested = []
    hashes = bench.index.hashes

    async def counted(collection: Collection, wanted: Sequence[str]) -> Mapping[str, str]:
        requested.append(len(wanted))
        return await hashes(collection, wanted)

    monkeypatch.setattr(bench.index, "hashes", counted)
    answers = await asyncio.gather(*(bench.client.get(f"/images/{name}") for name in names))
    assert {answer.status_code for answer in answers} == {200}
    assert len(requested) < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["link", "link/deep/er", "inner/link/x", "nowhere/x", "circle/x", "file.txt/x"]
)
async def test_a_refused_upload_makes_no_folder(
    bench: Gateway, tmp_path: Path, folder: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.images / "inner").mkdir()
    (bench.images / "link").symlink_to(outside)
    (bench.images / "inner" / "link").symlink_to(outside)
    (bench.images / "nowhere").symlink_to(tmp_path / "not-there")
    (bench.images / "circle").symlink_to(bench.images / "circle")
    (bench.images / "file.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    answer = await bench.client.post(
        "/api/v1/images", files={"image": ("a.png", png())}, data={"folder": folder}
    )
    assert_problem(answer, 422, "folder")
    assert sorted(tmp_path.rglob("*")) == before


async def test_an_upload_that_is_not_an_image_leaves_no_folder(bench: Gateway) -> None:
    answer = await bench.client.post(
        "/api/v1/images", files={"image": ("a.png", b"nothing")}, data={"folder": "new/deep"}
    )
    assert_problem(answer, 422, "image")
    assert list(bench.images.iterdir()) == []


async def test_links_within_the_folder_are_allowed(bench: Gateway) -> None:
    (bench.images / "real").mkdir()
    (bench.images / "short").symlink_to(bench.images / "real")
    answer = await bench.client.post(
        "/api/v1/images", files={"image": ("a.png", png())}, data={"folder": "short/new"}
    )
    assert answer.status_code == 201, answer.text
    assert (bench.images / "real" / "new" / "a.png").is_file()
