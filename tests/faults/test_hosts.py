"""Requests for other host names are refused, which prevents DNS rebinding."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from gateway.http.hosts import HostGuard
from tests.support.gateway_on_fakes import Gateway, gateway


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec, allowed_hosts="photos.example *.lan.example") as found:
        yield found


async def get(bench: Gateway, host: str | None, path: str = "/", **headers: str) -> httpx.Response:
    request = bench.client.build_request("GET", path, headers=headers)
    del request.headers["host"]
    if host is not None:
        request.headers["host"] = host
    return await bench.client.send(request)


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.",
        "gallery.localhost:3000",
        "127.0.0.1:3000",
        "192.168.1.20",
        "[::1]:3000",
        "[fe80::1%25eth0]",
        "[2001:db8::7]",
        "photos.example",
        "Photos.Example.:443",
        "nas.lan.example",
        None,
    ],
)
async def test_requests_for_allowed_hosts_are_answered(bench: Gateway, host: str | None) -> None:
    assert (await get(bench, host)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "photos.example.evil.example",
        "evilphotos.example",
        "lan.example.evil.example",
        "lan.example",
        "localhost.evil.example",
        "notlocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "[::1].evil.example",
        "[evil.example]",
        "::1",
        "localhost:3000:80",
        "localhost:port",
        "localhost/../evil",
        "",
        "..",
        "gateway",
    ],
)
async def test_foreign_hosts_are_refused_by_every_route(bench: Gateway, host: str) -> None:
    for path in ("/", "/web/app.js", "/docs", "/metrics", "/api/v1/healthcheck", "/images/a.jpg"):
        answer = await get(bench, host, path)
        assert answer.status_code == 421, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert "ALLOWED_HOSTS" in answer.json()["detail"]


async def test_a_page_with_dns_rebinding_cannot_write(bench: Gateway) -> None:
    """The browser takes it for the same origin; only the host header differs."""
    answer = await bench.client.post(
        "/api/v1/images",
        files={"image": ("a.jpg", b"x", "image/jpeg")},
        headers={"Host": "evil.example", "Origin": "http://evil.example"},
    )
    assert answer.status_code == 421
    assert list(bench.images.iterdir()) == []


async def test_the_forwarded_host_header_is_ignored(bench: Gateway) -> None:
    answer = await get(bench, "evil.example", **{"X-Forwarded-Host": "localhost"})
    assert answer.status_code == 421


async def test_a_request_with_two_hosts_is_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def app(*_: object) -> None:
        raise AssertionError("passed on")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    await HostGuard(app, [])({"type": "http", "headers": headers}, receive, send)
    assert sent[0]["status"] == 400


async def test_any_host_may_be_allowed(tmp_path: Path, small_spec: ModelSpec) -> None:
    async with gateway(tmp_path, small_spec, allowed_hosts="*") as open_bench:
        assert (await get(open_bench, "whatever.example")).status_code == 200


@pytest.mark.slow
@given(st.text(max_size=80))
def test_malformed_hosts_are_refused_without_an_error(host: str) -> None:
    async def app(*_: object) -> None:
        return None

    name = host.strip().lower()
    answers = HostGuard(app, []).answers_to(host)
    if answers and not any(c.isdigit() or c == ":" for c in name):
        assert "localhost" in name
