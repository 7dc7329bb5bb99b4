"""The state of the system, the dead letters, and signing in with a browser."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.log.dead_letter_reader import SETTLED_AS_HEADER, SETTLES_HEADER
from adapters.log.port import Message, Position
from gateway import ttl_cache
from gateway.http.credentials import COOKIE
from gateway.http.sign_in import own_address
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, image_record, png, unit
from tests.support.issuer import AUDIENCE, local_issuer

STATE, LETTERS = "/api/v1/state", "/api/v1/dead-letters"
KEY = "first-key-0123456789"
WHEN = datetime(2026, 1, 5, tzinfo=UTC)
OPENING = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(ttl_cache, "TTL_PER_COST", 0.0)
    records = [image_record("a.jpg", unit(1)), image_record("b.jpg", unit(0, 1))]
    async with gateway(tmp_path, small_spec, records) as bench:
        yield bench


async def bury(bench: Gateway, name: str, offset: int, minutes: int = 0) -> Position:
    letter = DeadLetter(
        occurred_at=WHEN + timedelta(minutes=minutes),
        image_id=name,
        error_class="Rejected",
        reason=f"{name} is not a picture",
        attempts=2,
        source_topic="images",
        source_partition=0,
        source_offset=offset,
    )
    (position,) = await bench.log.publish(IMAGES_DLQ, [Message(name, letter)])
    return position


class TestState:
    async def test_the_state_has_the_counts(self, bench: Gateway) -> None:
        await bury(bench, "broken.jpg", 3)
        answer = await bench.client.get(STATE)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "model_name": "small",
            "model_version": "0123456789ab",
            "collection": bench.collection.name,
            "images": 2,
            "waiting": None,
            "failed": 1,
            "uploads": True,
            "max_upload_bytes": 100_000_000,
        }

    async def test_a_server_that_is_down_is_reported(self, bench: Gateway) -> None:
        bench.log.available = False
        assert_problem(await bench.client.get(STATE), 503)
        bench.log.available = True
        assert (await bench.client.get(STATE)).status_code == 200

    @pytest.mark.slow
    async def test_the_state_is_cached_briefly(
        self, bench: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 60.0)
        assert (await bench.client.get(LETTERS)).json()["total"] == 0
        await bury(bench, "broken.jpg", 3)
        assert (await bench.client.get(LETTERS)).json()["total"] == 0


class TestModelChange:
    """The local stack's change to a better model, as the page shows it."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> AdoptionFile:
        return AdoptionFile(tmp_path / "adoption.json")

    @pytest.fixture
    async def local(
        self, tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Gateway]:
        monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 0.0)
        monkeypatch.setattr(ttl_cache, "TTL_PER_COST", 0.0)
        file = tmp_path / "adoption.json"
        async with gateway(tmp_path, small_spec, adoption_status_file=file) as local:
            yield local

    async def test_it_is_absent_if_there_is_none(self, local: Gateway, file: AdoptionFile) -> None:
        assert "model_change" not in (await local.client.get(STATE)).json()
        status = AdoptionStatus(model="big", instead_of="lite", step=AdoptionStep.DECLINED)
        file.write(status)
        assert "model_change" not in (await local.client.get(STATE)).json()
        # Another model than the one to be replaced answers: a user has chosen it.
        file.write(status.model_copy(update={"step": AdoptionStep.FAILED, "problem": "x"}))
        assert "model_change" not in (await local.client.get(STATE)).json()

    async def test_its_step_and_its_progress(self, local: Gateway, file: AdoptionFile) -> None:
        status = AdoptionStatus(
            model="big",
            instead_of="lite",
            step=AdoptionStep.DOWNLOADING,
            bytes_done=150_000_000,
            bytes_total=600_000_000,
        )
        file.write(status)
        assert (await local.client.get(STATE)).json()["model_change"] == {
            "model": "big",
            "step": "downloading",
            "text": "big is being downloaded: 150 of 600 MB; lite answers searches meanwhile",
            "done": 150_000_000,
            "total": 600_000_000,
            "problem": "",
            "decline": "./image-search models decline, or MODEL_NAME=lite at the next start",
        }
        file.write(status.model_copy(update={"step": AdoptionStep.DONE}))
        change = (await local.client.get(STATE)).json()["model_change"]
        assert (change["step"], change["total"], change["decline"]) == ("done", None, None)


class TestDeadLetters:
    async def test_the_newest_letter_of_each_image_comes_first(self, bench: Gateway) -> None:
        await bury(bench, "a.jpg", 1, minutes=1)
        await bury(bench, "b.jpg", 2, minutes=2)
        last = await bury(bench, "a.jpg", 3, minutes=3)
        answer = (await bench.client.get(LETTERS)).json()
        assert answer["total"] == 2
        assert [letter["image_name"] for letter in answer["letters"]] == ["a.jpg", "b.jpg"]
        assert answer["letters"][0] == {
            "letter": f"{last.partition}:{last.offset}",
            "image_name": "a.jpg",
            "error_class": "Rejected",
            "reason": "a.jpg is not a picture",
            "attempts": 2,
            "occurred_at": "2026-01-05T00:03:00Z",
        }
        limited = (await bench.client.get(LETTERS, params={"limit": 1})).json()
        assert (limited["total"], len(limited["letters"])) == (2, 1)

    async def test_settled_letters_are_not_listed(self, bench: Gateway) -> None:
        position = await bury(bench, "a.jpg", 1)
        name = f"{position.partition}:{position.offset}"
        settling = {SETTLES_HEADER: name, SETTLED_AS_HEADER: "dropped"}
        await bench.log.publish(IMAGES_DLQ, [Message("a.jpg", None, settling)])
        assert (await bench.client.get(LETTERS)).json() == {"total": 0, "letters": []}

    @pytest.mark.parametrize("limit", ["0", "1001", "x", "1.5"])
    async def test_the_limit_is_checked(self, bench: Gateway, limit: str) -> None:
        assert_problem(await bench.client.get(LETTERS, params={"limit": limit}), 422, "limit")


class TestDocumentation:
    async def test_it_loads_nothing_from_other_hosts(self, bench: Gateway) -> None:
        page = await bench.client.get("/docs")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        files = re.findall(r"""(?:src|href)="([^"]+)""", page.text)
        assert len(files) >= 4
        for file in files:
            assert file.startswith("/")
            answer = await bench.client.get(file)
            assert (answer.status_code, bool(answer.content)) == (200, True), file

    async def test_the_other_usual_address_leads_to_it(self, bench: Gateway) -> None:
        answer = await bench.client.get("/redoc")
        assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


class TestSigningIn:
    @pytest.mark.slow
    async def test_a_browser_gets_the_sign_in_form_and_signs_in(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            (bench.images / "a.png").write_bytes(png())
            await bench.holds("a.png")
            shown = await bench.client.get("/?q=%22a%22+cat", headers=OPENING)
            assert shown.status_code == 401
            # A challenge for basic authentication would open a dialog of the browser's own.
            assert shown.headers["www-authenticate"] == 'Bearer realm="image search"'
            assert "default-src 'self'" in shown.headers["content-security-policy"]
            assert 'value="/?q=%22a%22+cat"' in shown.text
            for file in ("/sign-in.css", "/sign-in.svg"):
                assert (await bench.client.get(file)).status_code == 200

            wrong = await bench.client.post("/sign-in", data={"key": KEY + "x", "then": "/?q=x"})
            assert wrong.status_code == 401
            assert "is not valid" in wrong.text
            assert 'value="/?q=x"' in wrong.text
            assert "set-cookie" not in wrong.headers

            right = await bench.client.post("/sign-in", data={"key": f" {KEY} ", "then": "/?q=x"})
            assert (right.status_code, right.headers["location"]) == (303, "/?q=x")
            cookie = right.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=lax" in cookie
            assert KEY not in cookie
            for path in ("/", "/web/app.js", "/images/a.png", STATE):
                assert (await bench.client.get(path)).status_code == 200, path

    async def test_forged_cookies_are_refused(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            for value in (KEY, "!!!", "", "w6k=", "/w==", "YQ", '"'):
                headers = {"Cookie": f"{COOKIE}={value}"}
                assert_problem(await bench.client.get(STATE, headers=headers), 401)

    async def test_a_page_of_another_site_may_not_sign_in(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            headers = {"Origin": "https://evil.example"}
            answer = await bench.client.post("/sign-in", data={"key": KEY}, headers=headers)
            assert_problem(answer, 403)

    async def test_guesses_are_counted(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(
            tmp_path, small_spec, api_keys=KEY, rate_limit=0.01, rate_burst=3
        ) as bench:
            for _ in range(3):
                answer = await bench.client.post("/sign-in", data={"key": "guess"})
                assert answer.status_code == 401
            assert_problem(await bench.client.post("/sign-in", data={"key": "guess"}), 429)

    @pytest.mark.slow
    async def test_a_token_can_be_used_to_sign_in(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        with local_issuer() as issuer:
            async with gateway(
                tmp_path, small_spec, oidc_issuer=issuer.url, oidc_audience=AUDIENCE
            ) as bench:
                answer = await bench.client.post("/sign-in", data={"key": issuer.token()})
                assert answer.status_code == 303
                assert (await bench.client.get(STATE)).status_code == 200
                answer = await bench.client.post("/sign-in", data={"key": "é" * 20})
                assert answer.status_code == 401

    async def test_there_is_no_sign_in_form_without_keys(self, bench: Gateway) -> None:
        assert_problem(await bench.client.get("/sign-in"), 404)

    @pytest.mark.parametrize(
        "address",
        ["//evil.example", "/\\evil.example", "https://evil.example", "", "x", "/\t/evil.example"],
    )
    def test_sign_in_redirects_to_no_other_site(self, address: str) -> None:
        assert own_address(address) == "/"
        assert own_address("/analytics?since=2026") == "/analytics?since=2026"

    async def test_an_address_is_shown_as_text(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(tmp_path, small_spec, api_keys=KEY) as bench:
            shown = await bench.client.get("/sign-in", params={"then": '/"><script>alert(1)'})
            assert "<script>" not in shown.text
