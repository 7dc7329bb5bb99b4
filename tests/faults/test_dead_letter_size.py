"""A dead letter can be written for any record, and the consumer continues."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from adapters.errors import Rejected
from adapters.log.dead_letter import HISTORY, KEY_BYTES, VALUE_BYTES, dead_letter, printable
from adapters.log.dead_letter_reader import FROM_HEADER
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message, Position
from consumers.indexing.failures import Poison
from consumers.repair.dead_letters import ATTEMPTS_HEADER, open_letters, retry
from schemas.codec import decode, encode
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ, Topic
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench"]

FOREIGN = bytes(range(256)) * (6_500_000 // 256)


class Broker(FakeEventLog):
    """Refuses messages above `most` bytes, and those that contain `dislikes`."""

    most = 1_000_000
    dislikes = b"\0never"

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        for message in messages:
            value = b"" if message.event is None else encode(message.event)
            size = len(message.key.encode()) + len(value)
            size += sum(len(name) + len(text) for name, text in message.headers.items())
            if size > self.most or self.dislikes in value:
                raise Rejected(f"a message of {size} bytes")
        return await super().publish(topic, messages)


def on_broker(bench: Bench) -> Broker:
    """A log with limits, in place of the bench's own."""
    broker = Broker()
    bench.log = bench.indexer._log = broker
    return broker


async def test_the_dead_letter_of_a_huge_record_keeps_the_first_bytes(bench: Bench) -> None:
    on_broker(bench)
    good = bench.added("good.png", bench.put_image("good.png"))
    await bench.run(bench.record(b"huge.jpg", FOREIGN), good)
    assert bench.ids == {"good.png"}
    (letter,) = await bench.dead_letters()
    assert letter.original_value == FOREIGN[:VALUE_BYTES]
    assert letter.original_value_bytes == len(FOREIGN)
    assert letter.original_value_sha256 == hashlib.sha256(FOREIGN).hexdigest()


async def test_a_broker_with_a_lower_limit_gets_a_smaller_dead_letter(bench: Bench) -> None:
    on_broker(bench).most = 50_000
    small = bench.record(b"small.jpg", b"{")
    await bench.run(bench.record(b"huge.jpg", FOREIGN), small)
    letters = {letter.image_id: letter for letter in await bench.dead_letters()}
    kept = letters["huge.jpg"].original_value
    assert kept is not None
    assert 0 < len(kept) < VALUE_BYTES
    assert letters["huge.jpg"].original_value_bytes == len(FOREIGN)
    assert letters["small.jpg"].original_value == b"{"
    assert letters["small.jpg"].original_value_bytes is None


@pytest.mark.parametrize("key", [b"k" * 3_000_000, b"\xff" * 3_000_000])
async def test_the_letter_of_a_record_with_a_huge_key_can_be_written(
    bench: Bench, key: bytes
) -> None:
    on_broker(bench)
    await bench.run(bench.record(key, b"{}"))
    (letter,) = await bench.dead_letters()
    assert letter.original_key == key[:KEY_BYTES]
    assert letter.original_key_bytes == len(key)


async def test_a_reason_that_is_huge_or_not_unicode_can_be_written(bench: Bench) -> None:
    on_broker(bench)
    for reason in ("x" * 3_000_000, "caf\udce9 \ud800", "é" * 1_000_000):
        poison = Poison(bench.record(b"a.png", b"{}"), "a\udce9.png", "Rejected", reason)
        await bench.indexer._dead_letter([poison])
    letters = await bench.dead_letters()
    assert "caf\\udce9 \\ud800" in {letter.reason for letter in letters}
    assert {letter.image_id for letter in letters} == {"a\\udce9.png"}
    assert len(letters) == 3
    assert printable("ab\ud800") == "ab\\ud800"


@pytest.mark.parametrize(
    "header", [b"\xff\xfe", b"9" * 10_000, "\N{ARABIC-INDIC DIGIT THREE}".encode(), b"", b"-4"]
)
async def test_foreign_headers_do_not_stop_a_letter(bench: Bench, header: bytes) -> None:
    record = bench.record(b"a.png", b"{}")
    await bench.run(record._replace(headers={ATTEMPTS_HEADER: header, FROM_HEADER: header}))
    (letter,) = await bench.dead_letters()
    assert letter.attempts == 1


async def test_the_attempts_of_a_retried_record_are_incremented(bench: Bench) -> None:
    record = bench.record(b"a.png", b"{}")
    names = " ".join(f"0:{n}" for n in range(10_000)).encode()
    await bench.run(record._replace(headers={ATTEMPTS_HEADER: b"3", FROM_HEADER: names}))
    (letter,) = await bench.dead_letters()
    assert letter.attempts == 4
    (written,) = [r async for r in bench.log.read_all(IMAGES_DLQ)]
    kept = written.headers[FROM_HEADER].split()
    assert len(kept) == HISTORY
    assert kept[-1] == b"0:9999"


async def test_the_removal_of_an_invalid_name_is_a_dead_letter(bench: Bench) -> None:
    """A foreign record: its key is longer than any image's may be."""
    await bench.run(bench.record(b"k" * 5_000, None), bench.removed("a.png"))
    (letter,) = await bench.dead_letters()
    assert letter.error_class == "InvalidEvent"
    assert [event.image_id for event in await bench.announced()] == ["a.png"]


async def test_a_dead_letter_without_the_whole_record_is_not_retried(bench: Bench) -> None:
    on_broker(bench)
    await bench.run(bench.record(b"huge.jpg", FOREIGN), bench.record(b"k" * 100_000, None))
    letters = await open_letters(bench.log)
    assert len(letters) == 2
    done = await retry(bench.log, letters)
    assert sorted(done.unreadable) == sorted(letter.name for letter in letters)
    assert done.published == done.superseded == []
    assert len(await open_letters(bench.log)) == len(letters)


async def test_a_refused_announcement_does_not_stop_the_indexer(bench: Bench) -> None:
    on_broker(bench).dislikes = b"odd.png"
    odd = bench.added("odd.png", bench.put_image("odd.png"))
    good = bench.added("good.png", bench.put_image("good.png", "blue"))
    await bench.run(odd, good)
    assert bench.ids == {"odd.png", "good.png"}
    assert [event.image_id for event in await bench.announced()] == ["good.png"]


def test_a_dead_letter_is_read_back_as_written() -> None:
    letter = dead_letter(
        image_id="a.png",
        error_class="Rejected",
        reason="no picture",
        key=b"a.png",
        value=b"\xff\x00",
        attempts=1,
        source_topic="images",
        source_partition=1,
        source_offset=2,
    )
    assert decode(DeadLetter, encode(letter)) == letter
    assert letter.original_value_bytes is None
