"""Access, rate limits, size limits, and events when the gateway stops."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import SAMPLES, System, eventually
from tests.support.gateways import another_gateway
from tests.support.issuer import AUDIENCE, local_issuer
from tests.unit.gateway.test_access import FORGED

KEY = "a-key-for-the-tests-0123"
SEARCH = "/api/v1/search-image"


def http_client(url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, **options)


async def test_keys_and_tokens_are_required(system: System, tmp_path: Path) -> None:
    with local_issuer() as issuer:
        settings = {
            "API_KEYS": KEY,
            "OIDC_ISSUER": issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "CORS_ORIGINS": "https://photos.example",
        }
        async with (
            another_gateway(system, tmp_path, **settings) as gateway,
            http_client(gateway.url) as client,
        ):
            for path in ("/", "/docs", "/openapi.json", "/images/photos/cat.jpg", "/web/app.js"):
                assert (await client.get(path)).status_code == 401, path
                assert (await client.get(path, headers={"X-API-Key": KEY})).status_code == 200
            body = {"text": "tennis", "limit": 1}
            for credential in (KEY, issuer.token()):
                headers = {"Authorization": f"Bearer {credential}"}
                answer = await client.post(SEARCH, json=body, headers=headers)
                assert answer.status_code == 200, answer.text
            for kind, forge in FORGED.items():
                headers = {"Authorization": f"Bearer {forge(issuer)}"}
                answer = await client.post(SEARCH, json=body, headers=headers)
                assert answer.status_code == 401, kind
                assert answer.headers["content-type"] == "application/problem+json"
            headers = {"X-API-Key": KEY, "Origin": "https://photos.example"}
            answer = await client.post(SEARCH, json=body, headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://photos.example"
            headers["Origin"] = "https://evil.example"
            assert (await client.post(SEARCH, json=body, headers=headers)).status_code == 403


async def test_too_many_requests_are_slowed(system: System, tmp_path: Path) -> None:
    settings = {"RATE_LIMIT": "1", "RATE_BURST": "10"}
    async with (
        another_gateway(system, tmp_path, **settings) as gateway,
        http_client(gateway.url) as client,
    ):
        body = {"text": "tennis", "limit": 1}
        answers = await asyncio.gather(*(client.post(SEARCH, json=body) for _ in range(40)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 25 <= len(refused) <= 30
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        await asyncio.sleep(int(refused[-1].headers["retry-after"]) + 1)
        assert (await client.post(SEARCH, json=body)).status_code == 200


async def test_shutdown_flushes_the_events(system: System, tmp_path: Path) -> None:
    async with another_gateway(system, tmp_path) as gateway:
        async with http_client(gateway.url) as client:
            texts = [f"the last words, number {n}" for n in range(60)]
            await asyncio.gather(
                *(client.post(SEARCH, json={"text": text, "limit": 1}) for text in texts)
            )
        assert await gateway.stop() == 0

    async def reported() -> bool:
        records = await system.read_topic("searches", 20)
        return set(texts) <= {json.loads(record.value)["text"] for record in records}

    await eventually(reported, seconds=30)


@pytest.fixture
async def client(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(system.gateway) as client:
        yield client


async def refused(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in statuses, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/problem+json"


async def test_hostile_input_is_refused_with_a_reason(
    system: System, client: httpx.AsyncClient
) -> None:
    before = {path for path in system.images.rglob("*") if path.is_file()}
    json_type = {"Content-Type": "application/json"}
    await refused(await client.post(SEARCH, json={"text": "x" * 10_000}), 422)
    for text in ("a\0b", "a\x1b[2Jb", "\x07", "a\u009bb"):
        await refused(await client.post(SEARCH, json={"text": text}), 422)
    for weight in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"1"', b"0"):
        content = b'{"terms": [{"text": "a", "weight": ' + weight + b"}]}"
        await refused(await client.post(SEARCH, content=content, headers=json_type), 400, 422)
    deep = b'{"text":' * 50_000
    await refused(await client.post(SEARCH, content=deep, headers=json_type), 400, 422)
    await refused(await client.post(SEARCH, json={"image_name": "a\0"}), 422)
    await refused(
        await client.post(SEARCH, content=b'{"image_name":"\\ud800"}', headers=json_type), 422
    )
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for name, data in (("x.svg", svg), ("x.jpg", svg), ("x.png", b"<html>"), ("x.jpg", b"")):
        for path in (SEARCH, "/api/v1/images"):
            await refused(await client.post(path, files={"image": (name, data)}), 422)
    cat = (SAMPLES / "photos" / "cat.jpg").read_bytes()
    for folder in ("../..", "/../etc", "a/../../b", ".ssh", "a\0"):
        answer = await client.post(
            "/api/v1/images", files={"image": ("x.jpg", cat)}, data={"folder": folder}
        )
        await refused(answer, 422)
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "..%5c..%5cx", "%00"):
        await refused(await client.get(f"/images/{path}"), 404)
        await refused(await client.get(f"/thumbnails/{path}"), 404, 422)
    assert {path for path in system.images.rglob("*") if path.is_file()} == before


async def test_an_upload_of_200_megabytes_is_refused(client: httpx.AsyncClient) -> None:
    chunk = b"\xff\xd8\xff" + b"\0" * 999_997

    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'
        for _ in range(200):
            yield chunk

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for path in ("/api/v1/images", SEARCH):
        for more in ({"Content-Length": "200000000"}, {}):
            # The gateway may hang up on what it has refused already.
            with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                answer = await client.post(path, content=endless(), headers={**headers, **more})
                await refused(answer, 413)
    assert (await client.get("/api/v1/healthcheck")).status_code == 200
