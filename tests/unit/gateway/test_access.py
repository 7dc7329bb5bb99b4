"""Keys, tokens of an issuer, rates, foreign pages, bounds in time; and a cache that is bounded."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.settings import BadSettings
from gateway.http.gate import MAX_CLIENTS, RateLimit, client_address
from gateway.search.text_cache import MODELS, TextCache
from gateway.settings import GatewaySettings
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, image_record, png, unit
from tests.support.issuer import AUDIENCE, Issuer, local_issuer

KEY, OTHER = "first-key-0123456789", "second-key-0123456789"
HEALTH = "/api/v1/healthcheck"
ROUTES = (
    ("GET", "/"),
    ("GET", "/web/app.js"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/images/a.jpg"),
    ("GET", "/thumbnails/a.jpg"),
    ("GET", "/api/v1/duplicates"),
    ("GET", "/api/v1/state"),
    ("GET", "/api/v1/dead-letters"),
    ("GET", "/api/v1/nothing"),
    ("POST", "/api/v1/search-image"),
    ("POST", "/api/v1/images"),
    ("POST", "/api/v1/create-feedback"),
)


async def warm(bench: Gateway) -> None:
    for _ in range(100):
        if (await bench.client.get(HEALTH)).status_code == 200:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the gateway did not become healthy")


class TestKeys:
    @pytest.mark.slow
    async def test_every_route_but_health_requires_a_key(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, api_keys=f"{KEY}, {OTHER}") as bench:
            for method, path in ROUTES:
                refused = await bench.client.request(method, path)
                assert_problem(refused, 401)
                assert "Bearer" in refused.headers["www-authenticate"]
                assert "Basic" in refused.headers["www-authenticate"]
                for headers in good(KEY) + good(OTHER):
                    answer = await bench.client.request(method, path, headers=headers)
                    assert answer.status_code != 401, (path, headers)
            await warm(bench)

    async def test_wrong_keys_are_refused(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            for wrong in (KEY[:-1], KEY + "x", KEY.upper(), OTHER, "", "é"):
                for headers in good(wrong):
                    answer = await bench.client.post(
                        "/api/v1/search-image",
                        json={"text": "x"},
                        headers={k.encode(): v.encode() for k, v in headers.items()},
                    )
                    assert_problem(answer, 401)
            for value in ("Basic", "Basic !!!", "Bearer", "Digest x", KEY):
                headers = {"Authorization": value}
                assert_problem(await bench.client.get("/", headers=headers), 401)

    @pytest.mark.slow
    async def test_searches_need_no_key_when_none_is_configured(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec) as bench:
            assert (await bench.search(text="x")).status_code == 200
            assert "security" not in (await bench.client.get("/openapi.json")).json()

    @pytest.mark.slow
    async def test_the_openapi_document_requires_a_key(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            document = (await bench.client.get("/openapi.json", headers={"X-API-Key": KEY})).json()
            assert document["security"] == [{"key": []}, {"bearer": []}]
            assert document["paths"][HEALTH]["get"]["security"] == []

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"api_keys": "short"}, "16 characters"),
            ({"oidc_issuer": "https://x"}, "OIDC_AUDIENCE"),
            ({"oidc_issuer": "http://x", "oidc_audience": "y"}, "https"),
            ({"cors_origins": "photos.example"}, "origin"),
            ({"cors_origins": "https://photos.example/path"}, "origin"),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(
        self, settings: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(BadSettings, match=named):
            GatewaySettings(**settings)


def good(key: str) -> list[dict[str, str]]:
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    return [
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"Basic {basic}"},
    ]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with local_issuer() as issuer:
        yield issuer


def public_pem(issuer: Issuer) -> bytes:
    return issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def unsigned(issuer: Issuer) -> str:
    return jwt.encode(issuer.claims(), "", algorithm="none", headers={"kid": "1"})


def with_public_key_as_secret(issuer: Issuer) -> str:
    """The classic confusion: HMAC keyed with the bytes that everybody can fetch."""
    import hashlib
    import hmac
    import json

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "1"}).encode())
    signed = f"{head}.{part(json.dumps(issuer.claims()).encode())}"
    return f"{signed}.{part(hmac.digest(public_pem(issuer), signed.encode(), hashlib.sha256))}"


def tampered(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    _, body, _ = issuer.token(sub="root").split(".")
    return f"{head}.{body}.{signature}"


FORGED: dict[str, Callable[[Issuer], str]] = {
    "unsigned": unsigned,
    "the public key as a secret": with_public_key_as_secret,
    "tampered": tampered,
    "another key": lambda i: i.token(key=rsa.generate_private_key(65537, 2048)),
    "another kind of key": lambda i: i.token(
        key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"
    ),
    "another algorithm of the same key": lambda i: i.token(algorithm="PS256"),
    "a key that is not published": lambda i: i.token(kid="2"),
    "expired": lambda i: i.token(exp=1),
    "of the future": lambda i: i.token(iat=4_000_000_000),
    "another audience": lambda i: i.token(aud="somebody-else"),
    "another issuer": lambda i: i.token(iss="https://somebody.else"),
    "without a subject": lambda i: i.token(sub=None),
    "without an expiry": lambda i: i.token(exp=None),
    "without an audience": lambda i: i.token(aud=None),
    "garbage": lambda _: "a.b.c",
    "no token": lambda _: "x",
}


class TestTokens:
    @pytest.mark.slow
    async def test_a_token_of_the_issuer_passes(
        self, tmp_path: Path, small_spec: ModelSpec, issuer: Issuer
    ) -> None:
        settings: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        async with gateway(tmp_path, small_spec, **settings) as bench:
            for _ in range(3):
                headers = {"Authorization": f"Bearer {issuer.token()}"}
                assert (await bench.client.get("/", headers=headers)).status_code == 200
            # Discovery and keys are requested once, not for each request.
            assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]
            assert_problem(await bench.client.get("/"), 401)
            assert "Basic" not in (await bench.client.get("/")).headers["www-authenticate"]
            await warm(bench)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", sorted(FORGED))
    async def test_a_forged_one_does_not(
        self, tmp_path: Path, small_spec: ModelSpec, issuer: Issuer, kind: str
    ) -> None:
        settings: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        async with gateway(tmp_path, small_spec, **settings) as bench:
            headers = {"Authorization": f"Bearer {FORGED[kind](issuer)}"}
            assert_problem(await bench.client.get("/", headers=headers), 401)
            # Nor as a key, which needs no signature.
            headers = {"X-API-Key": issuer.token()}
            assert_problem(await bench.client.get("/", headers=headers), 401)

    @pytest.mark.slow
    async def test_keys_and_tokens_together(
        self, tmp_path: Path, small_spec: ModelSpec, issuer: Issuer
    ) -> None:
        settings: dict[str, Any] = {
            "oidc_issuer": issuer.url,
            "oidc_audience": AUDIENCE,
            "api_keys": KEY,
        }
        async with gateway(tmp_path, small_spec, **settings) as bench:
            for credential in (KEY, issuer.token()):
                headers = {"Authorization": f"Bearer {credential}"}
                assert (await bench.client.get("/", headers=headers)).status_code == 200

    async def test_an_unreachable_issuer_is_unavailable_and_not_a_refusal(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        with local_issuer() as issuer:
            token = issuer.token()
        settings: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        async with gateway(tmp_path, small_spec, **settings) as bench:
            headers = {"Authorization": f"Bearer {token}"}
            assert_problem(await bench.client.get("/", headers=headers), 503)


class TestRates:
    def test_a_burst_then_a_rate(self) -> None:
        limit = RateLimit(2.0, 3)
        assert [limit.take("a", 0.0) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
        assert limit.take("b", 0.0) == 0
        assert [limit.take("a", 0.5), limit.take("a", 0.5)] == [0, 0.5]
        assert [limit.take("a", 1000.0) for _ in range(4)] == [0, 0, 0, 0.5]

    def test_memory_is_bounded(self) -> None:
        limit = RateLimit(1.0, 1)
        for n in range(MAX_CLIENTS + 500):
            limit.take(str(n), 0.0)
        assert len(limit._buckets) == MAX_CLIENTS

    def test_clients_are_distinguished_by_address(self) -> None:
        def address(host: str) -> str:
            return client_address({"client": (host, 1)})

        assert address("10.0.0.1") != address("10.0.0.2")
        assert address("2001:db8::1") == address("2001:db8::ffff")
        assert address("2001:db8::1") != address("2001:db8:0:1::1")
        assert client_address({"client": None}) == "unknown"

    async def test_too_many_requests_get_retry_after(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        settings: dict[str, Any] = {
            "api_keys": f"{KEY} {OTHER}",
            "rate_limit": 0.1,
            "rate_burst": 4,
        }
        async with gateway(tmp_path, small_spec, **settings) as bench:

            async def request_page(key: str) -> httpx.Response:
                return await bench.client.get("/", headers={"X-API-Key": key})

            assert [(await request_page(KEY)).status_code for _ in range(5)] == [200] * 4 + [429]
            page_file = await bench.client.get("/web/app.js", headers={"X-API-Key": KEY})
            assert page_file.status_code == 200
            refused = await request_page(KEY)
            assert_problem(refused, 429)
            assert 1 <= int(refused.headers["retry-after"]) <= 10
            assert (await request_page(OTHER)).status_code == 200
            guesses = [(await request_page(f"guess-{n}")).status_code for n in range(6)]
            assert guesses == [401] * 4 + [429] * 2
            await warm(bench)


class TestPages:
    async def test_a_foreign_page_may_not_post(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(tmp_path, small_spec) as bench:
            for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
                response = await bench.client.post(
                    "/api/v1/images",
                    files={"image": ("x.png", png())},
                    headers={"Origin": origin},
                )
                assert_problem(response, 403)
            assert list(bench.images.iterdir()) == []
            own = {"Origin": "http://localhost"}
            body = {"text": "x"}
            search = "/api/v1/search-image"
            assert (await bench.client.post(search, json=body, headers=own)).status_code == 200

    @pytest.mark.slow
    async def test_pages_of_allowed_sites_may(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        origin = "https://photos.example"
        settings: dict[str, Any] = {"cors_origins": f"{origin},https://b.example", "api_keys": KEY}
        async with gateway(tmp_path, small_spec, **settings) as bench:
            requested = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "x-api-key,content-type",
            }
            preflight = await bench.client.options("/api/v1/search-image", headers=requested)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == origin
            headers = {"Origin": origin, "X-API-Key": KEY}
            body = {"text": "x"}
            answer = await bench.client.post("/api/v1/search-image", json=body, headers=headers)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            # A page can read why it was refused.
            refused = await bench.client.post("/api/v1/search-image", headers={"Origin": origin})
            assert_problem(refused, 401)
            assert refused.headers["access-control-allow-origin"] == origin
            foreign = {"Origin": "https://evil.example", "X-API-Key": KEY}
            answer = await bench.client.get("/", headers=foreign)
            assert "access-control-allow-origin" not in answer.headers


class TestTime:
    @pytest.mark.slow
    async def test_an_answer_that_takes_too_long_times_out(
        self, tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with gateway(tmp_path, small_spec, request_timeout=0.2) as bench:

            async def stuck(*_: Any, **__: Any) -> Any:
                await asyncio.sleep(60)

            monkeypatch.setattr(bench.index, "search", stuck)
            response = await bench.search(text="x")
            assert_problem(response, 503)
            assert response.headers["retry-after"]

    async def test_health_is_green_only_once_the_models_are_warm(
        self, tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = asyncio.Event()
        from adapters.embedder.fake import FakeEmbedder

        embed = FakeEmbedder.embed_texts

        async def slow(self: FakeEmbedder, *arguments: Any) -> Any:
            await release.wait()
            return await embed(self, *arguments)

        monkeypatch.setattr(FakeEmbedder, "embed_texts", slow)
        async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))]) as bench:
            response = await bench.client.get(HEALTH)
            assert_problem(response, 503)
            assert "warmed up" in response.json()["missing"]["model"]
            release.set()
            await warm(bench)
            assert bench.embedder.image_calls == 1


class TestTextCache:
    async def test_the_text_cache_is_bounded_for_each_model(self) -> None:
        cache = TextCache(3)
        requested: list[str] = []

        async def get(model: str, text: str) -> list[float]:
            async def embed() -> list[float]:
                requested.append(text)
                return [float(len(requested))]

            return await cache.get(model, text, embed)

        first = await get("m", "a")
        for text in ("b", "c", "a", "d"):
            await get("m", text)
        assert requested == ["a", "b", "c", "d"]
        assert await get("m", "a") == first
        await get("m", "b")
        assert requested == ["a", "b", "c", "d", "b"]
        assert await get("n", "a") != first
        for n in range(20):
            await get(f"model {n}", "a")
        assert len(cache._models) == MODELS
        assert all(len(texts) <= 3 for texts in cache._models.values())

    async def test_a_text_in_flight_is_shared_and_errors_are_not_cached(self) -> None:
        cache = TextCache(3)
        calls = 0

        async def embed() -> list[float]:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            if calls == 1:
                raise Unavailable("down")
            return [1.0]

        answers = await asyncio.gather(
            *(cache.get("m", "x", embed) for _ in range(5)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Unavailable] * 5
        assert await cache.get("m", "x", embed) == [1.0]
        assert calls == 2
        leaving = asyncio.create_task(cache.get("m", "y", embed))
        staying = asyncio.create_task(cache.get("m", "y", embed))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == [1.0]

    async def test_a_text_cache_of_size_zero_stores_nothing(self) -> None:
        cache = TextCache(0)

        async def embed() -> list[float]:
            return [1.0]

        assert await cache.get("m", "x", embed) == [1.0]
        assert cache._models["m"] == {}
