"""What the gateway's events contain about the people who search and rate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from adapters.embedder.spec import ModelSpec
from gateway.auth.privacy import Privacy
from gateway.settings import GatewaySettings
from schemas.codec import decode
from schemas.events import FeedbackGiven, SearchPerformed
from schemas.topics import FEEDBACK, SEARCHES
from tests.support.gateway_on_fakes import SECRET, gateway

KEYS = "first-key-of-the-test second-key-of-the-test"
ADDRESS = "127.0.0.1"


async def used(
    folder: Path, spec: ModelSpec, key: str = "", **settings: Any
) -> tuple[SearchPerformed, FeedbackGiven, bytes]:
    """The events of one search and its rating, and all that was written."""
    async with gateway(folder, spec, **settings) as served:
        headers = {"X-API-Key": key} if key else {}
        body = {"text": "a private question"}
        answer = await served.client.post("/api/v1/search-image", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        rating = {"user_feedback": 7, "jwt": answer.json()["jwt"]}
        rated = await served.client.post("/api/v1/create-feedback", json=rating, headers=headers)
        assert rated.status_code == 200, rated.text
    # What waited was published as the gateway stopped.
    (search,) = [record async for record in served.log.read_all(SEARCHES)]
    (given,) = [record async for record in served.log.read_all(FEEDBACK)]
    written = (search.value or b"") + (given.value or b"")
    return decode(SearchPerformed, search.value), decode(FeedbackGiven, given.value), written


@pytest.mark.slow
async def test_a_client_has_one_pseudonym(tmp_path: Path, small_spec: ModelSpec) -> None:
    search, given, written = await used(tmp_path, small_spec)
    assert search.client == given.client
    assert re.fullmatch(r"[0-9a-f]{20}", search.client or "")
    assert ADDRESS.encode() not in written
    again, *_ = await used(tmp_path, small_spec)
    assert again.client == search.client


@pytest.mark.slow
async def test_keys_are_clients_and_are_not_written(tmp_path: Path, small_spec: ModelSpec) -> None:
    first, second = KEYS.split()
    one, _, written = await used(tmp_path, small_spec, first, api_keys=KEYS)
    other, *_ = await used(tmp_path, small_spec, second, api_keys=KEYS)
    assert one.client != other.client
    assert first.encode() not in written
    privacy = Privacy(GatewaySettings(), SECRET)
    assert one.client in privacy.names(first)
    assert one.client not in privacy.names(second)


@pytest.mark.slow
async def test_another_salt_gives_other_pseudonyms(tmp_path: Path, small_spec: ModelSpec) -> None:
    plain, *_ = await used(tmp_path, small_spec)
    salted, *_ = await used(tmp_path, small_spec, client_salt=SecretStr("salt"))
    assert plain.client != salted.client
    assert salted.client in Privacy(
        GatewaySettings(client_salt=SecretStr("salt")), "of no importance"
    ).names(ADDRESS)
    assert plain.client in Privacy(GatewaySettings(), SECRET).names(ADDRESS)


@pytest.mark.slow
async def test_texts_can_be_left_out(tmp_path: Path, small_spec: ModelSpec) -> None:
    search, given, written = await used(tmp_path, small_spec, log_texts=False)
    assert (search.text, given.text) == (None, None)
    assert b"private" not in written
    assert search.search_id == given.search_id


@pytest.mark.slow
async def test_clients_can_be_left_out(tmp_path: Path, small_spec: ModelSpec) -> None:
    search, given, _ = await used(tmp_path, small_spec, log_clients=False)
    assert (search.client, given.client) == (None, None)
    assert search.text == "a private question"


@pytest.mark.parametrize("name", ["", "\udcff", "2001:db8::/64"])
def test_any_client_name_can_be_hashed(name: str) -> None:
    assert len(Privacy(GatewaySettings(), SECRET).names(name)) == 3
