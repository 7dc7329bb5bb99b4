"""The system state is read once for all callers, completely, and with bounded memory."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.state.open_dead_letters
import gateway.ttl_cache
from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.log.dead_letter_reader import Letter, OpenLetters, read_letters, settling
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Message, Position
from gateway.single_flight import SingleFlight
from gateway.state.open_dead_letters import NewestOpenLetters
from gateway.ttl_cache import TtlCache
from schemas.codec import encode
from schemas.events import DeadLetter, now
from schemas.topics import IMAGES_DLQ
from tests.support.gateway_on_fakes import Gateway
from tests.support.gateway_on_fakes import gateway as running


def put(log: FakeEventLog, partition: int, message: Message) -> None:
    """Append it in this partition, whatever its key."""
    records = log._partitions(IMAGES_DLQ)[partition]
    records.append(
        LogRecord(
            Position(partition, len(records)),
            message.key.encode(),
            None if message.event is None else encode(message.event),
            0,
            {name: text.encode() for name, text in message.headers.items()},
        )
    )


def letter(name: str) -> Message:
    event = DeadLetter(
        image_id=name,
        error_class="Rejected",
        reason=f"why {name}",
        attempts=1,
        source_topic="images",
        occurred_at=now(),
    )
    return Message(name, event)


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(gateway.ttl_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(gateway.ttl_cache, "TTL_PER_COST", 0.0)
    async with running(tmp_path, small_spec) as found:
        yield found


async def test_a_shared_read_is_finished_for_later_callers() -> None:
    requested, go = 0, asyncio.Event()

    async def read() -> int:
        nonlocal requested
        requested += 1
        await go.wait()
        return requested

    kept = TtlCache(read)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kept.get()
    go.set()
    assert await kept.get() == 1
    assert await kept.get() == 1
    assert requested == 1


async def test_a_read_that_never_ends_times_out_and_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway.ttl_cache, "TIMEOUT_SECONDS", 0.05)
    requested = 0

    async def read() -> int:
        nonlocal requested
        requested += 1
        if requested == 1:
            await asyncio.Event().wait()
        return requested

    kept = TtlCache(read)
    with pytest.raises(Unavailable):
        await kept.get()
    assert await kept.get() == 2


async def test_an_error_of_a_read_reaches_all_callers_and_is_not_cached() -> None:
    requested = 0

    async def read() -> int:
        nonlocal requested
        requested += 1
        await asyncio.sleep(0)
        if requested == 1:
            raise Unavailable("away")
        return requested

    kept = TtlCache(read)
    found = await asyncio.gather(*(kept.get() for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in found] == [Unavailable] * 5
    assert await kept.get() == 2


async def test_a_shared_run_is_cancelled_with_its_last_caller() -> None:
    begun, cancelled = 0, 0

    async def work() -> None:
        nonlocal begun, cancelled
        begun += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    shared: SingleFlight[str, None] = SingleFlight()
    callers = [asyncio.create_task(shared.get("k", work)) for _ in range(4)]
    await asyncio.sleep(0.01)
    for caller in callers:
        assert (begun, cancelled) == (1, 0)
        caller.cancel()
        await asyncio.sleep(0.01)
    assert (begun, cancelled) == (1, 1)
    late = asyncio.create_task(shared.get("k", work))
    await asyncio.sleep(0.01)
    assert begun == 2
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)


async def test_a_letter_read_after_its_settlement_is_settled() -> None:
    log = FakeEventLog()
    put(log, 2, letter("a"))
    (found,) = await read_letters(log)
    put(log, 0, settling(found, "dropped"))
    open_letters: OpenLetters[Letter] = OpenLetters(log, lambda each: each)
    assert await open_letters.current() == {}
    assert not open_letters._settled


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.integers(0, 30))
async def test_open_letters_are_the_unsettled_ones_in_any_reading_order(
    rng: random.Random, count: int
) -> None:
    log = FakeEventLog()
    open_letters: OpenLetters[Letter] = OpenLetters(log, lambda each: each)
    for number in range(count):
        partition = rng.randrange(3)
        letters = await read_letters(log)
        if letters and rng.random() < 0.4:
            put(log, partition, settling(rng.choice(letters), "dropped"))
        else:
            put(log, partition, letter(f"{number}"))
        if rng.random() < 0.3:
            await open_letters.current()
    wanted = {each.name for each in await read_letters(log) if each.settled_as is None}
    assert set(await open_letters.current()) == wanted
    assert set(await OpenLetters[Letter](log, lambda each: each).current()) == wanted
    assert not open_letters._settled


@pytest.mark.parametrize("name", ["", "x", "1:2:3", "-1:5", "٣:٤", "1:" + "9" * 5000, "01:1"])
async def test_an_invalid_name_of_a_settled_letter_stops_no_reader(name: str) -> None:
    log = FakeEventLog()
    put(log, 0, letter("a"))
    put(log, 1, Message("k", None, {"settles": name}))
    open_letters: OpenLetters[Letter] = OpenLetters(log, lambda each: each)
    assert len(await open_letters.current()) == 1
    assert not open_letters._settled


@pytest.mark.slow
async def test_only_the_newest_reasons_are_in_memory_and_all_are_listed(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.state.open_dead_letters, "WITH_REASON", 10)
    log = bench.log
    await log.publish(IMAGES_DLQ, [letter(f"{n:03}") for n in range(95)])
    newest = NewestOpenLetters(log)
    known = await newest.current()
    assert [each.image_id for each in known] == [f"{n:03}" for n in reversed(range(95))]
    assert [each.reason is not None for each in known] == [True] * 10 + [False] * 85
    reported: list[Any] = []
    for skip in range(0, 120, 30):
        answer = await bench.client.get(f"/api/v1/dead-letters?limit=30&skip={skip}")
        assert answer.json()["total"] == 95
        reported += answer.json()["letters"]
    assert [each["reason"] for each in reported] == [f"why {n:03}" for n in reversed(range(95))]
    assert (await bench.client.get("/api/v1/state")).json()["failed"] == 95
    # When the newest are settled, the ones before them are listed.
    for each in await read_letters(log):
        if each.event.image_id >= "050":
            await log.publish(IMAGES_DLQ, [settling(each, "dropped")])
    left = (await bench.client.get("/api/v1/dead-letters?limit=1000")).json()
    assert [each["reason"] for each in left["letters"]] == [
        f"why {n:03}" for n in range(49, -1, -1)
    ]


async def test_a_bad_page_is_refused(bench: Gateway) -> None:
    for query in ("skip=-1", "limit=0", "limit=1001", "skip=x"):
        assert (await bench.client.get(f"/api/v1/dead-letters?{query}")).status_code == 422
