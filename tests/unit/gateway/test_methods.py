"""The methods of every path: HEAD wherever GET is, and all of them in `Allow`."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.embedder.spec import ModelSpec
from gateway.http.methods import METHODS
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, image_record, png, unit

UNDOCUMENTED = ("/", "/docs", "/openapi.json", "/web/app.js", "/redoc")


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec, [image_record("a.png", unit(1))]) as bench:
        (bench.images / "a.png").write_bytes(png())
        yield bench


async def routes(bench: Gateway) -> dict[str, set[str]]:
    """Path with its parameters filled in -> the methods that must be answered there."""
    document = (await bench.client.get("/openapi.json")).json()
    found = {
        re.sub(r"\{[^}]*\}", "a.png", path): {method.upper() for method in methods}
        for path, methods in document["paths"].items()
    }
    assert len(found) >= 9
    found |= {path: {"GET"} for path in UNDOCUMENTED}
    return {path: {*each, "HEAD"} if "GET" in each else each for path, each in found.items()}


@pytest.mark.slow
async def test_allow_names_all_methods_of_a_path(bench: Gateway) -> None:
    found = await routes(bench)
    assert found["/api/v1/images"] == {"GET", "HEAD", "POST"}
    for path, methods in found.items():
        for method in {*METHODS, "TRACE"} - methods:
            answer = await bench.client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == methods, (method, path)
            if method != "HEAD":
                assert_problem(answer, 405)


async def test_head_is_answered_like_get(bench: Gateway) -> None:
    for path, methods in (await routes(bench)).items():
        if "GET" not in methods:
            continue
        got, head = await bench.client.get(path), await bench.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "content-length", "etag"):
            if path != "/metrics" or name != "content-length":  # Each answer changes the numbers.
                assert head.headers.get(name) == got.headers.get(name), (path, name)


async def test_an_unknown_path_has_no_methods(bench: Gateway) -> None:
    assert_problem(await bench.client.put("/nowhere"), 404)


async def test_head_is_not_documented(bench: Gateway) -> None:
    document = (await bench.client.get("/openapi.json")).json()
    assert not [path for path, methods in document["paths"].items() if "head" in methods]
