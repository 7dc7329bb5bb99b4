"""A short outage delays an answer; a long one refuses it at once."""

import asyncio
import time
from pathlib import Path

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from gateway.search.outage import OutageRetry
from tests.support.gateway_on_fakes import gateway, image_record, unit


class Server:
    """Answers only while it is up, and counts its requests."""

    def __init__(self) -> None:
        self.up = False
        self.requests = 0

    async def request(self) -> str:
        self.requests += 1
        if not self.up:
            raise Unavailable("gone")
        return "answer"


@pytest.mark.slow
async def test_a_short_outage_is_waited_for() -> None:
    server = Server()
    answer = asyncio.create_task(OutageRetry(20)(server.request))
    await asyncio.sleep(0.6)
    assert not answer.done()
    assert server.requests >= 2
    server.up = True
    assert await answer == "answer"


@pytest.mark.slow
async def test_after_a_lasting_outage_later_requests_fail_at_once() -> None:
    server, patience = Server(), OutageRetry(0.8)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await patience(server.request)
    assert time.monotonic() - began >= 0.8
    before = server.requests
    for _ in range(5):
        with pytest.raises(Unavailable):
            await patience(server.request)
    assert server.requests == before + 5


@pytest.mark.slow
async def test_a_second_outage_is_waited_for_again() -> None:
    server, patience = Server(), OutageRetry(0.3)
    with pytest.raises(Unavailable):
        await patience(server.request)
    await asyncio.sleep(0.4)
    before = server.requests
    with pytest.raises(Unavailable):
        await patience(server.request)
    assert server.requests > before + 1


async def test_without_patience_there_is_one_request() -> None:
    server = Server()
    with pytest.raises(Unavailable):
        await OutageRetry(0)(server.request)
    assert server.requests == 1


async def test_permanent_errors_are_not_waited_for() -> None:
    async def refused() -> str:
        raise Rejected("no")

    with pytest.raises(Rejected):
        await asyncio.wait_for(OutageRetry(20)(refused), 1)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["embedder", "index"])
async def test_a_search_survives_a_restart_of_its_server(
    tmp_path: Path, small_spec: ModelSpec, server: str
) -> None:
    records = [image_record("a.jpg", unit(1))]
    async with gateway(tmp_path, small_spec, records, outage_patience=20) as bench:
        fake = getattr(bench, server)
        fake.available = False
        searching = asyncio.create_task(bench.names(text="never asked before"))
        await asyncio.sleep(0.4)
        assert not searching.done()
        fake.available = True
        assert await searching == ["a.jpg"]
    (event,) = await bench.searches()  # by the end all are written
    # The search began a little after the sleep's timer was set.
    assert event.latency_ms.total > 390
