"""The gateway refuses an image whose decoder fails, and keeps running."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from adapters.embedder.spec import ModelSpec
from tests.support import hostile_tasks
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, image_record, png, unit

WAYS = [
    (hostile_tasks.SEGFAULT, "SIGSEGV"),
    (hostile_tasks.LOOP, "more than 2 s"),
    (hostile_tasks.EAT, "memory"),
]
"""The first bytes of an image, and what is reported of it."""


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, request: pytest.FixtureRequest
) -> AsyncIterator[Gateway]:
    looping = "LOOP" in request.node.name
    settings = {
        "decode_seconds": 2.0 if looping else 60.0,
        "request_timeout": 120.0,
        "thumbnails_dir": tmp_path / "thumbnails",
    }
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        yield bench


@pytest.fixture(autouse=True)
def bad_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.decoders.TASKS", hostile_tasks.MODULE)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def upload(bench: Gateway, data: bytes) -> httpx.Response:
    files = {"image": ("x.png", data, "image/png")}
    return await bench.client.post("/api/v1/images", files=files)


async def is_well(bench: Gateway) -> None:
    assert await bench.names(image=base64_of(png())) == ["a.jpg"]
    assert (await upload(bench, png())).status_code in (200, 201)
    (bench.images / "good.png").write_bytes(png())
    await bench.holds("a.jpg", "good.png")
    assert (await bench.client.get("/thumbnails/good.png")).status_code == 200
    await bench.index.delete(bench.collection, ["good.png"])


@pytest.mark.slow
@pytest.mark.parametrize(("way", "reason"), WAYS)
async def test_a_query_with_a_failing_decoder_names_the_field(
    bench: Gateway, way: bytes, reason: str
) -> None:
    bad = base64_of(way)
    assert_problem(await bench.search(image=bad), 422, "image")
    response = await bench.search(terms=[{"text": "a dog"}, {"image": bad}])
    assert_problem(response, 422, "terms.1")
    assert reason in response.json()["detail"]
    await is_well(bench)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "reason"), WAYS)
async def test_an_upload_with_a_failing_decoder_names_the_field(
    bench: Gateway, way: bytes, reason: str
) -> None:
    response = await upload(bench, way)
    assert_problem(response, 422, "image")
    assert reason in response.json()["detail"]
    assert [path.name for path in bench.images.rglob("*") if path.is_file()] == []
    await is_well(bench)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "reason"), WAYS)
async def test_a_failed_thumbnail_is_reported_and_not_retried_for_each_request(
    bench: Gateway, tmp_path: Path, way: bytes, reason: str
) -> None:
    count = tmp_path / "count"
    data = png() + f"\nCOUNT {count}\n".encode() + b"\nNOTE " + way
    (bench.images / "bad.png").write_bytes(data)
    await bench.holds("bad.png")
    response = await bench.client.get("/thumbnails/bad.png")
    assert_problem(response, 422)
    assert reason in response.json()["detail"]
    tries = len(count.read_text())
    assert_problem(await bench.client.get("/thumbnails/bad.png"), 422)
    assert len(count.read_text()) == tries <= 2
    await bench.index.delete(bench.collection, ["bad.png"])
    await is_well(bench)
