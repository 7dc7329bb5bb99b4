"""Readers of the dead letters skip records that they cannot read."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.log.dead_letter_reader import UNREADABLE, Letter, OpenLetters, read_letters, settling
from adapters.log.fake import FakeEventLog
from adapters.log.kafka import _headers
from adapters.log.port import LogRecord, Message, Position
from consumers.repair.audit import audit
from consumers.repair.dead_letters import drop, open_letters, retry
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ
from tests.support.gateway_on_fakes import Gateway, gateway
from tests.unit.consumers.test_audit import everything

FOREIGN = [
    b"",
    b"no JSON",
    b"\xff\xfe",
    b"{}",
    b"[]",
    b"null",
    b'{"schema_version": "9.0", "image_id": "a"}',
    b'{"schema_version": "1.0", "image_id": 7}',
    b"x" * 6_500_000,
]


def letter(name: str) -> DeadLetter:
    return DeadLetter(
        image_id=name, error_class="Rejected", reason="no", attempts=1, source_topic="images"
    )


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: repr(value[:20]))
async def test_the_state_is_served_with_any_bytes_in_the_topic(
    bench: Gateway, value: bytes
) -> None:
    await bench.log.publish(IMAGES_DLQ, [Message("foreign", value), Message("a", letter("a"))])
    state = await bench.client.get("/api/v1/state")
    assert state.status_code == 200, state.text
    assert state.json()["failed"] == 2
    reported = (await bench.client.get("/api/v1/dead-letters")).json()
    assert reported["total"] == 2
    assert {each["error_class"] for each in reported["letters"]} == {"Rejected", UNREADABLE}
    assert all(len(each["reason"]) < 5000 for each in reported["letters"])


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: repr(value[:20]))
async def test_the_commands_list_and_settle_an_unreadable_letter(
    small_spec: ModelSpec, value: bytes
) -> None:
    log, index = FakeEventLog(), FakeImageIndex()
    await log.publish(IMAGES_DLQ, [Message("foreign", value)])
    (found,) = await open_letters(log)
    assert found.event.error_class == UNREADABLE
    assert found.event.image_id == "foreign"
    assert found.source is None
    await audit(log, index, await index.ensure_collection(small_spec), everything)
    assert set((await retry(log, [found])).unreadable) == {found.name}
    assert await drop(log, [found]) == 1
    assert await open_letters(log) == []


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.binary(max_size=200), header=st.binary(max_size=20))
async def test_no_bytes_stop_a_reader(value: bytes, header: bytes) -> None:
    log = FakeEventLog()
    await log.publish(IMAGES_DLQ, [Message("k", value)])
    (topic,) = [partition for partition in log.topics[IMAGES_DLQ.name] if partition]
    record = topic[0]
    topic[0] = type(record)(
        record.position,
        None,
        record.value,
        record.timestamp_ms,
        {"retried-from": header, "settles": header, "settled-as": header},
    )
    assert len(await read_letters(log)) == 1


async def test_the_state_reads_only_what_is_new(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.log.publish(IMAGES_DLQ, [Message(f"{n}", letter(f"{n}")) for n in range(200)])
    read: list[int] = []
    read_all = bench.log.read_all

    async def counted(*arguments: object) -> AsyncIterator[object]:
        async for record in read_all(*arguments):  # type: ignore[arg-type]
            read.append(record.position.offset)
            yield record

    monkeypatch.setattr(bench.log, "read_all", counted)
    monkeypatch.setattr("gateway.ttl_cache.TTL_SECONDS", 0.0)
    monkeypatch.setattr("gateway.ttl_cache.TTL_PER_COST", 0.0)
    assert (await bench.client.get("/api/v1/state")).json()["failed"] == 200
    assert len(read) == 200
    await bench.log.publish(IMAGES_DLQ, [Message("new", letter("new"))])
    assert (await bench.client.get("/api/v1/state")).json()["failed"] == 201
    assert (await bench.client.get("/api/v1/dead-letters?limit=1")).json()["total"] == 201
    assert len(read) == 201


async def test_settled_letters_are_removed_and_a_recreated_topic_is_read_again() -> None:
    log = FakeEventLog()
    open_letters: OpenLetters[Letter] = OpenLetters(log, lambda each: each)
    await log.publish(IMAGES_DLQ, [Message(name, letter(name)) for name in ("a", "b")])
    assert {each.event.image_id for each in (await open_letters.current()).values()} == {"a", "b"}
    first = next(iter((await open_letters.current()).values()))
    await log.publish(IMAGES_DLQ, [settling(first, "dropped")])
    assert len(await open_letters.current()) == 1
    log.topics.clear()
    await log.publish(IMAGES_DLQ, [Message("c", letter("c"))])
    assert {each.event.image_id for each in (await open_letters.current()).values()} == {"c"}


def put(
    log: FakeEventLog,
    partition: int,
    value: bytes | None,
    headers: Mapping[str, bytes | None] | None = None,
    timestamp_ms: int = 0,
) -> None:
    """Append a record as a broker may hold one, in this partition."""
    records = log._partitions(IMAGES_DLQ)[partition]
    position = Position(partition, len(records))
    records.append(LogRecord(position, b"k", value, timestamp_ms, headers or {}))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("timestamp_ms", [-1, -(10**18), 10**18, 253_402_300_800_000])
async def test_no_timestamp_stops_a_reader(bench: Gateway, timestamp_ms: int) -> None:
    put(bench.log, 0, b"no JSON", timestamp_ms=timestamp_ms)
    (found,) = await read_letters(bench.log)
    assert found.event.error_class == UNREADABLE
    assert (await bench.client.get("/api/v1/state")).json()["failed"] == 1
    assert (await bench.client.get("/api/v1/dead-letters")).json()["total"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("header", ["retried-from", "settles", "settled-as"])
@pytest.mark.parametrize("value", [None, b"no JSON"])
async def test_no_header_without_a_value_stops_a_reader(
    bench: Gateway, header: str, value: bytes | None
) -> None:
    put(bench.log, 0, value, {header: None})
    assert len(await read_letters(bench.log)) == (value is not None)
    assert (await bench.client.get("/api/v1/state")).status_code == 200


def test_readers_of_kafka_get_bytes_for_every_header() -> None:
    assert _headers([("a", None), ("b", b"x")]) == {"a": b"", "b": b"x"}
    assert _headers(()) == {}
