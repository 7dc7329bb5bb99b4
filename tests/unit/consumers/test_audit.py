"""Audit, repair and dead letters on in-memory servers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.dead_letter_reader import read_letters
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Message, Position
from consumers.indexing.failures import Poison
from consumers.repair.audit import audit, repair
from consumers.repair.dead_letters import LetterFilter, drop, open_letters, retry
from consumers.repair.republish import latest_records, republish
from schemas.codec import encode
from schemas.events import ImageAdded
from schemas.topics import IMAGES, IMAGES_DLQ, Topic

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
HASHES = {letter: letter * 64 for letter in "abcdef"}


def everything(partition: int, offset: int) -> bool:
    return True


def added(image_id: str, sha256: str) -> ImageAdded:
    return ImageAdded(
        image_id=image_id,
        uri=f"file:///{image_id}",
        sha256=HASHES[sha256],
        size_bytes=1,
        media_type="image/png",
        modified_at=WHEN,
        added_at=WHEN,
    )


@dataclass
class World:
    log: FakeEventLog
    index: FakeImageIndex
    collection: Collection

    async def publish(self, image_id: str, sha256: str | None) -> Position:
        event = added(image_id, sha256) if sha256 else None
        (position,) = await self.log.publish(IMAGES, [Message(image_id, event)])
        return position

    async def store(self, image_id: str, sha256: str) -> None:
        event = added(image_id, sha256)
        record = ImageRecord(
            image_id=image_id,
            uri=event.uri,
            sha256=event.sha256,
            media_type="image/png",
            size_bytes=1,
            width=1,
            height=1,
            modified_at=WHEN,
            added_at=WHEN,
            vector=[1.0] * 8,
        )
        await self.index.upsert(self.collection, [record])

    async def bury(self, image_id: str, position: Position, value: bytes, **headers: bytes) -> None:
        record = LogRecord(position, image_id.encode(), value, 0, headers)
        poison = Poison(record, image_id, "Rejected", "not a picture", 2)
        await self.log.publish(IMAGES_DLQ, [poison.message("images", "small")])


@pytest.fixture
async def world(small_spec: ModelSpec) -> World:
    index = FakeImageIndex()
    return World(FakeEventLog(), index, await index.ensure_collection(small_spec))


async def test_audit_reports_differences_and_repair_publishes_them(world: World) -> None:
    for image_id, reported, stored in (
        ("good", "a", "a"),
        ("missing", "b", None),
        ("stale", "c", "d"),
        ("orphan-removed", None, "e"),
        ("removed", None, None),
    ):
        await world.publish(image_id, reported)
        if stored:
            await world.store(image_id, stored)
    await world.store("orphan-unheard-of", "f")
    poison = await world.publish("poison", "f")
    await world.bury("poison", poison, encode(added("poison", "f")))
    result = await audit(world.log, world.index, world.collection, everything)
    assert (result.missing, result.stale) == (["missing"], ["stale"])
    assert result.orphaned == ["orphan-removed", "orphan-unheard-of"]
    assert (result.dead_lettered, result.agreed, result.is_clean) == (["poison"], 1, False)
    before = await latest_records(world.log)
    assert await repair(world.log, result) == 4
    after = await latest_records(world.log)
    assert {key for key in after if after[key].position != before.get(key, after[key]).position} | {
        "orphan-unheard-of"
    } == {"missing", "stale", "orphan-removed", "orphan-unheard-of"}
    assert after["missing"].change == before["missing"].change


async def test_images_that_the_group_has_not_read_are_waiting_and_not_missing(world: World) -> None:
    await world.publish("new", "a")
    result = await audit(world.log, world.index, world.collection, lambda *_: False)
    assert (result.waiting, result.missing, result.is_clean) == (["new"], [], True)


async def test_an_image_whose_newest_content_is_dead_lettered_is_stale(world: World) -> None:
    await world.store("x", "a")
    position = await world.publish("x", "b")
    await world.bury("x", position, b"")
    result = await audit(world.log, world.index, world.collection, everything)
    assert result.stale == ["x"]


class Racing(FakeEventLog):
    """Somebody else writes a newer record just before ours."""

    def __init__(self, rival: Sequence[Message]) -> None:
        super().__init__()
        self.rival = list(rival)

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        if self.rival and topic is IMAGES and self.topics.get(IMAGES.name):
            rival, self.rival = self.rival, []
            await super().publish(topic, rival)
        return await super().publish(topic, messages)


@pytest.mark.parametrize("newer", ["c", None])
async def test_republishing_never_overtakes_a_newer_record(newer: str | None) -> None:
    event = added("x", newer) if newer else None
    log = Racing([Message("x", event)])
    await log.publish(IMAGES, [Message("x", added("x", "a"))])
    seen = await latest_records(log)
    count = await republish(log, [seen["x"].message()], {"x": seen["x"].position})
    assert count == 1
    newest = (await latest_records(log))["x"].change
    assert getattr(newest, "sha256", None) == (HASHES[newer] if newer else None)


async def test_a_retried_letter_keeps_its_history_when_it_fails_again(world: World) -> None:
    position = await world.publish("x", "a")
    await world.bury("x", position, encode(added("x", "a")))
    (first,) = await open_letters(world.log)
    done = await retry(world.log, [first])
    assert done.published == [first.name]
    assert await open_letters(world.log) == []
    records = [r async for r in world.log.read_all(IMAGES)]
    again = records[-1]
    assert again.headers["retried-from"] == first.name.encode()
    assert again.value is not None
    message = Poison(again, "x", "Rejected", "still not", 1).message("images", "small")
    await world.log.publish(IMAGES_DLQ, [message])
    (second,) = await open_letters(world.log)
    assert second.history == (first.name,)
    assert second.event.attempts == 3
    assert len(await read_letters(world.log)) == 2


async def test_a_letter_is_not_retried_when_its_image_has_a_newer_event(world: World) -> None:
    position = await world.publish("x", "a")
    await world.bury("x", position, encode(added("x", "a")))
    await world.publish("x", "b")
    done = await retry(world.log, await open_letters(world.log))
    assert (done.published, len(done.superseded)) == ([], 1)
    assert len([r async for r in world.log.read_all(IMAGES)]) == 2
    assert await open_letters(world.log) == []


async def test_unreadable_letters_stay_and_can_be_dropped_by_filter(world: World) -> None:
    await world.bury("x", Position(0, 7), b"{not json")
    await world.bury("y", Position(1, 3), b"{not json")
    letters = await open_letters(world.log)
    assert len((await retry(world.log, letters)).unreadable) == 2
    chosen = await open_letters(world.log, LetterFilter(source_partition=0, offsets=(5, 9)))
    assert [letter.event.image_id for letter in chosen] == ["x"]
    assert await open_letters(world.log, LetterFilter(error_class="Other")) == []
    assert await drop(world.log, chosen) == 1
    assert [letter.event.image_id for letter in await open_letters(world.log)] == ["y"]
    settled = {letter.event.image_id: letter.settled_as for letter in await read_letters(world.log)}
    assert settled == {"x": "dropped", "y": None}
