"""The watcher notices that `images` has lost its end, and starts again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogLost, LogRecord, Message, Position
from producers import sources as module
from producers.events import addition
from producers.known_image import FileStat
from producers.log.writer import ChangeWriter
from producers.settings import WatcherSettings
from producers.sources import Sources
from schemas.topics import IMAGES, Topic


class Log(FakeEventLog):
    """Loses its end like a Kafka whose machine lost power; answers late, or never."""

    unanswered = 0
    compacted: Collection[Position] = ()
    answer_first: asyncio.Event | None = None

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        written = await super().publish(topic, messages)
        if self.unanswered:
            self.unanswered -= 1
            raise Unavailable("written, and no answer")
        waits, self.answer_first = self.answer_first, None
        if waits is not None:
            await waits.wait()
        return written

    async def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        async for record in super().read_all(topic, start):
            if record.position not in self.compacted:
                yield record

    def lose(self, count: int) -> None:
        for partition in self._partitions(IMAGES):
            del partition[-count:]

    async def keys(self) -> set[str]:
        return {(record.key or b"").decode() async for record in self.read_all(IMAGES)}


def images(start: int, end: int) -> list[Message]:
    moment, stat = datetime.now(UTC), FileStat(1, 1)
    return [
        Message(name, addition(name, f"file:///x/{name}", bytes(32), stat, moment))
        for name in (f"{number}.png" for number in range(start, end))
    ]


async def refused(key: str, reason: str) -> None:
    raise AssertionError((key, reason))


async def write(sources: Sources, messages: Sequence[Message]) -> None:
    writer = ChangeWriter(sources._log, refused)
    await writer.write(messages)
    async with asyncio.timeout(60):
        await writer.flush()


async def look(sources: Sources) -> None:
    """One look at the log, or what it found."""
    reading = asyncio.create_task(sources._follow_log())
    await asyncio.wait([reading], timeout=0.1)
    if reading.done():
        reading.result()
    reading.cancel()


@pytest.fixture
def log() -> Log:
    made = Log()
    made._partitions(IMAGES)
    return made


@pytest.fixture
def sources(tmp_path: Path, log: Log) -> Sources:
    return Sources(WatcherSettings(images_dir=tmp_path), log)


@pytest.mark.slow
async def test_a_write_after_a_lost_end_restarts_the_watcher(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 1000.0)
    settings = WatcherSettings(images_dir=tmp_path, quiet_seconds=0.05)

    async def shows(count: int) -> None:
        async with asyncio.timeout(60):
            while len(await log.keys()) < count:
                await asyncio.sleep(0.01)

    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)
    work = asyncio.create_task(Sources(settings, log).run())
    await shows(60)
    log.lose(3)
    # As many as there are partitions, several times over: some come to lie where others were.
    for number in range(60, 120):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(work, 60)
    assert caught.group_contains(LogLost)
    again = asyncio.create_task(Sources(settings, log).run())
    await shows(120)
    again.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await again


async def test_a_loss_between_start_and_first_check_is_detected(sources: Sources, log: Log) -> None:
    await log.publish(IMAGES, images(0, 200))
    await sources._load()
    log.lose(1)
    with pytest.raises(LogLost):
        await look(sources)


async def test_a_loss_of_records_written_since_the_last_check_is_detected(
    sources: Sources, log: Log
) -> None:
    await write(sources, images(0, 200))
    await look(sources)
    await write(sources, images(200, 400))
    log.lose(1)
    with pytest.raises(LogLost):
        await look(sources)


async def test_a_loss_between_a_check_and_the_next_write_is_detected(
    sources: Sources, log: Log
) -> None:
    await log.publish(IMAGES, images(0, 200))
    await look(sources)
    log.lose(1)
    with pytest.raises(LogLost):
        await write(sources, images(200, 400))


async def test_a_loss_detected_by_a_write_is_reported_by_the_next_check(
    sources: Sources, log: Log
) -> None:
    await write(sources, images(0, 200))
    log.lose(1)
    with pytest.raises(LogLost):
        await write(sources, images(200, 400))
    with pytest.raises(LogLost):
        await look(sources)


async def test_a_loss_between_two_records_of_one_batch_is_detected(
    sources: Sources, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that tries again on its own writes one half before the loss, one after it."""
    publish = log.publish

    async def publishing(topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        half = len(messages) // 2
        first = await publish(topic, messages[:half])
        log.lose(2)
        return [*first, *await publish(topic, messages[half:])]

    monkeypatch.setattr(log, "publish", publishing)
    with pytest.raises(LogLost):
        await write(sources, images(0, 200))


@pytest.mark.parametrize("read", [False, True])
async def test_an_unanswered_attempt_hides_no_loss(sources: Sources, log: Log, read: bool) -> None:
    if read:
        await log.publish(IMAGES, images(0, 200))
        await sources._load()
    else:
        await write(sources, images(0, 200))
    log.lose(1)
    # Behind the cut, and far beyond where the log ended before.
    log.unanswered = 1
    with pytest.raises(LogLost):
        await write(sources, images(200, 600))


@pytest.mark.slow
@pytest.mark.parametrize("known", [0, 200])
async def test_an_outage_is_not_taken_for_a_loss(sources: Sources, log: Log, known: int) -> None:
    await write(sources, images(0, known))
    log.unanswered = 2
    log.available = False
    writing = asyncio.create_task(write(sources, images(known, 400)))
    await asyncio.sleep(0.05)
    await look(sources)
    log.available = True
    await writing
    await look(sources)
    assert len(await log.keys()) == 400


@pytest.mark.slow
async def test_a_compacted_record_is_not_taken_for_a_loss(sources: Sources, log: Log) -> None:
    await write(sources, images(0, 200))
    log.compacted = {partition[-1].position for partition in log._partitions(IMAGES)}
    await log.publish(IMAGES, images(0, 200))
    log.unanswered = 1
    await write(sources, images(200, 400))
    await look(sources)


@pytest.mark.slow
async def test_answers_out_of_order_are_not_taken_for_a_loss(sources: Sources, log: Log) -> None:
    await write(sources, images(0, 200))
    log.answer_first = asyncio.Event()
    answer = log.answer_first
    slow = asyncio.create_task(write(sources, images(200, 400)))
    await asyncio.sleep(0.01)
    await write(sources, images(400, 600))
    await look(sources)
    answer.set()
    await slow
    await log.publish(IMAGES, images(600, 700))  # another program
    await write(sources, images(700, 800))
    await look(sources)
