"""An unknown position is absent, and never that of another record."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import RecordMetadata
from PIL import ExifTags, Image
from prometheus_client import generate_latest

from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index import queries as weaviate_queries
from adapters.index.fake import FakeImageIndex
from adapters.index.port import ImageFilter
from adapters.index.schema import known_vector
from adapters.log import kafka as kafka_log
from adapters.log.dead_letter import dead_letter
from adapters.log.dead_letter_reader import read_letters
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message, Position
from consumers.repair.audit import audit, repair
from consumers.repair.dead_letters import LetterFilter, open_letters, retry
from imaging.metadata.exif import read_metadata
from producers.log.refused_files import RefusalReporter
from producers.metrics import registry
from producers.status import Status
from schemas.codec import decode
from schemas.events import DeadLetter
from schemas.topics import IMAGES, IMAGES_DLQ
from tests.unit.consumers.test_audit import added, everything
from tests.unit.producers.test_watcher import eventually, letters, on_disk, watching

LATIN1 = "latin1-\udce9.jpg"


async def test_a_dead_letter_about_a_file_has_no_position(log: FakeEventLog) -> None:
    await RefusalReporter(log).report(LATIN1, "InvalidName", "the name is not UTF-8")
    (letter,) = await letters(log)
    assert (letter.source_partition, letter.source_offset) == (None, None)
    (read,) = await read_letters(log)
    assert read.source is None


def of_before() -> DeadLetter:
    """Such a letter as earlier versions wrote it."""
    return DeadLetter(
        image_id=r"latin1-\xe9.jpg",
        error_class="InvalidName",
        reason="the name is not UTF-8",
        attempts=1,
        source_topic="images",
        source_partition=0,
        source_offset=0,
    )


@pytest.mark.parametrize("old", [True, False], ids=["an earlier version's letter", "ours"])
async def test_the_image_at_the_first_position_is_repaired(
    tmp_path: Path, log: FakeEventLog, small_spec: ModelSpec, old: bool
) -> None:
    """With a file whose name is not UTF-8 in the folder, and the index emptied."""
    root = tmp_path / "images"
    root.mkdir()
    for n in range(40):
        (root / f"{n}.jpg").write_bytes(bytes([n]))
    (root / LATIN1).write_bytes(b"x")
    expected = {name: sha for name, sha in on_disk(root).items() if name != LATIN1}
    async with watching(root, log):

        async def reported() -> bool:
            return (
                len([r async for r in log.read_all(IMAGES)]) == 40 and len(await letters(log)) == 1
            )

        await eventually(reported)
    if old:
        await log.publish(IMAGES_DLQ, [Message("k", of_before())])
    firsts = [r async for r in log.read_all(IMAGES) if r.position == Position(0, 0)]
    assert firsts, "an image has the reported position"
    index = FakeImageIndex()
    collection = await index.ensure_collection(small_spec)
    result = await audit(log, index, collection, everything)
    assert sorted(result.missing) == sorted(expected)
    assert result.dead_lettered == []
    assert await repair(log, result) == 40


async def test_a_dead_letter_of_the_first_record_still_counts(
    log: FakeEventLog, small_spec: ModelSpec
) -> None:
    (position,) = await log.publish(IMAGES, [Message("a", added("a", "f"))])
    (record,) = [each async for each in log.read_all(IMAGES)]
    letter = of_before().model_copy(
        update={
            "image_id": "a",
            "source_partition": position.partition,
            "source_offset": position.offset,
            "original_key": record.key,
            "original_value": record.value,
        }
    )
    await log.publish(IMAGES_DLQ, [Message("a", letter)])
    index = FakeImageIndex()
    result = await audit(log, index, await index.ensure_collection(small_spec), everything)
    assert result.dead_lettered == ["a"]


async def test_filters_by_position_exclude_letters_without_one(log: FakeEventLog) -> None:
    await RefusalReporter(log).report(LATIN1, "InvalidName", "the name is not UTF-8")
    assert len(await open_letters(log)) == 1
    assert await open_letters(log, LetterFilter(source_partition=0)) == []
    assert await open_letters(log, LetterFilter(source_partition=0, offsets=(0, 10))) == []


def test_old_letters_are_still_read() -> None:
    value = of_before().model_dump_json().encode()
    assert decode(DeadLetter, value).source_offset == 0


STORED = {"sha256": "a" * 64, "width": 3.0, "height": 2.0, "media_type": "image/png"}


def test_a_stored_image_without_a_size_is_not_reused_as_one_of_no_size() -> None:
    assert known_vector({"sha256": "a" * 64}, [1.0]) is None
    assert known_vector(STORED, []) is None
    known = known_vector(STORED, [1.0])
    assert known is not None
    assert (known.width, known.height) == (3, 2)


async def test_a_letter_with_a_truncated_record_is_retried_from_the_log(
    log: FakeEventLog,
) -> None:
    """The log's record is published, never the letter's excerpt; a missing record is an error."""
    event = added("a.jpg", "f").model_copy(update={"uri": "file:///" + "x" * 1000})
    await log.publish(IMAGES, [Message("a.jpg", event), Message("b.jpg", added("b.jpg", "f"))])
    records = {r.key: r async for r in log.read_all(IMAGES)}
    for name, value in (("a.jpg", None), ("b.jpg", b"another that stood there " * 20)):
        record = records[name.encode()]
        letter = dead_letter(
            image_id=name,
            error_class="Rejected",
            reason="no picture",
            attempts=1,
            source_topic=IMAGES.name,
            source_partition=record.position.partition,
            source_offset=record.position.offset,
            key=record.key,
            value=value or record.value,
            value_limit=100,
        )
        assert letter.original_value_bytes is not None
        await log.publish(IMAGES_DLQ, [Message(name, letter)])
    letters_of = {each.event.image_id: each.name for each in await open_letters(log)}
    done = await retry(log, await open_letters(log))
    assert done.published == [letters_of["a.jpg"]]
    assert list(done.unreadable) == [letters_of["b.jpg"]]
    assert "beginning" in done.unreadable[letters_of["b.jpg"]]
    published = [r.value async for r in log.read_all(IMAGES) if r.key == b"a.jpg"]
    assert published == [records[b"a.jpg"].value] * 2


def test_a_source_that_was_never_compared_has_no_time() -> None:
    """A 0 would be a time: alerts on how long ago it was would go by it."""
    status = Status("folder")
    reported = generate_latest(registry(lambda: {"": status})).decode()
    assert 'known_pictures{source="main"}' in reported
    assert "last_reconcile_timestamp_seconds{" not in reported
    status.reconciled()
    reported = generate_latest(registry(lambda: {"": status})).decode()
    assert 'last_reconcile_timestamp_seconds{source="main"}' in reported


async def test_a_match_without_a_distance_is_not_the_best() -> None:
    item = SimpleNamespace(
        uuid="1", properties={"image_id": "a"}, metadata=SimpleNamespace(distance=None), vector={}
    )

    async def answer(**_: object) -> SimpleNamespace:
        return SimpleNamespace(objects=[item])

    objects = SimpleNamespace(query=SimpleNamespace(near_vector=answer))
    with pytest.raises(Unavailable, match="distance"):
        await weaviate_queries.search(
            objects,  # type: ignore[arg-type]
            [1.0],
            1,
            where=ImageFilter(),
            details=(),
            with_vectors=False,
        )


class Forgetful:
    """A producer whose broker had a batch twice and knows no more where it put it."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._sent = 0

    def _acknowledged(self, within: int) -> "asyncio.Future[RecordMetadata]":
        partition = TopicPartition("t", 0)
        future = asyncio.get_running_loop().create_future()
        future.set_result(RecordMetadata("t", 0, partition, self._base + within, -1, 0, self._base))
        return future

    async def send(self, topic: str, **_: object) -> "asyncio.Future[RecordMetadata]":
        self._sent += 1
        return self._acknowledged(self._sent - 1)

    async def send_batch(self, *_: object, **__: object) -> "asyncio.Future[RecordMetadata]":
        return self._acknowledged(0)

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def create_batch(self) -> SimpleNamespace:
        return SimpleNamespace(append=lambda **_: True)


@pytest.mark.parametrize("count", [2, 64], ids=["one by one", "in bulk"])
async def test_an_unknown_offset_of_the_broker_is_an_error(count: int) -> None:
    """It returns -1, from which the client counts on: -1, 0, 1, the offsets of other records."""
    records = [(b"k", b"v", list[tuple[str, bytes]]())] * count
    with pytest.raises(Unavailable, match="did not return the offsets"):
        await kafka_log._publish(Forgetful(-1), "t", records)
    found = await kafka_log._publish(Forgetful(5), "t", records)
    assert [position.offset for position in found] == list(range(5, 5 + count))


@pytest.mark.parametrize(
    ("degrees", "expected"), [((0.0, 0.0, 0.0), None), ((0.0, 0.0, 36.0), 0.01)]
)
def test_zero_coordinates_are_no_position(
    degrees: tuple[float, float, float], expected: float | None
) -> None:
    """Zeros are what many write then; the equator alone is a place."""
    exif = Image.Exif()
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLongitude] = (0.0, 0.0, 0.0), degrees
    found = read_metadata(exif)
    assert found.longitude == expected
    assert found.latitude == (None if expected is None else 0.0)
