"""Indexing on in-memory servers: every effect, every failure, and nothing lost."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Message, Position
from consumers.indexing.decoding import Decoder
from consumers.indexing.failures import PoisonLimit, TooMuchPoison
from consumers.indexing.indexer import Indexer
from consumers.indexing.pipeline import IndexingPipeline
from consumers.indexing.settings import IndexingSettings
from schemas.codec import decode, encode
from schemas.events import DeadLetter, ImageAdded, ImageIndexed
from schemas.topics import IMAGES, IMAGES_DLQ, IMAGES_INDEXED

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples" / "images" / "1"


@dataclass
class Bench:
    """An indexer on in-memory fakes, with a folder of pictures and a log to read from."""

    folder: Path
    embedder: FakeEmbedder
    index: FakeImageIndex
    log: FakeEventLog
    collection: Collection
    indexer: Indexer
    settings: IndexingSettings
    offsets: dict[int, int] = field(default_factory=dict)

    def put_image(self, name: str, colour: str = "red") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), colour).save(buffer, "PNG")
        return self.file(name, buffer.getvalue())

    def file(self, name: str, data: bytes) -> bytes:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def record(self, key: bytes | None, value: bytes | None, partition: int = 0) -> LogRecord:
        offset = self.offsets.get(partition, 0)
        self.offsets[partition] = offset + 1
        return LogRecord(Position(partition, offset), key, value, 0)

    def added(self, name: str, data: bytes, partition: int = 0) -> LogRecord:
        event = ImageAdded(
            image_id=name,
            uri=(self.folder / name).as_uri(),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            media_type="image/png",
            modified_at=WHEN,
            added_at=WHEN,
        )
        return self.record(name.encode(), encode(event), partition)

    async def logged(self, *records: LogRecord) -> list[LogRecord]:
        """These records as the log holds them."""
        positions = await self.log.publish(
            IMAGES, [Message((r.key or b"").decode(), r.value) for r in records]
        )
        return [r._replace(position=p) for r, p in zip(records, positions, strict=True)]

    def removed(self, name: str) -> LogRecord:
        return self.record(name.encode(), None)

    async def run(self, *records: LogRecord) -> None:
        await self.indexer.apply(await self.indexer.prepare(records))

    @property
    def decoder(self) -> Decoder:
        return self.indexer._preparer._inference._decoder

    @property
    def ids(self) -> set[str]:
        return set(self.index.records[self.collection.name])

    async def dead_letters(self) -> list[DeadLetter]:
        return [decode(DeadLetter, r.value) async for r in self.log.read_all(IMAGES_DLQ)]

    async def announced(self) -> list[ImageIndexed]:
        return [decode(ImageIndexed, r.value) async for r in self.log.read_all(IMAGES_INDEXED)]


@asynccontextmanager
async def made_bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Bench]:
    """A bench whose pictures lie in this folder."""
    settings = IndexingSettings(
        embed_batch=4, retry_initial=0.01, retry_maximum=0.02, batch_records=8, max_attempts=2
    )
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    index, log = FakeImageIndex(), FakeEventLog()
    collection = await index.ensure_collection(small_spec)
    with ThreadPoolExecutor(2) as pool:
        indexer = Indexer(embedder, index, log, collection, small_spec, settings, pool)
        yield Bench(tmp_path, embedder, index, log, collection, indexer, settings)
        indexer.close()


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Bench]:
    async with made_bench(tmp_path, small_spec) as made:
        # The first worker of a process takes a while to start, which tests of time do not mean.
        await made.decoder.sandbox.run("tests.support.hostile_tasks:echo", None)
        yield made


async def test_an_image_is_indexed_with_its_properties_and_announced(bench: Bench) -> None:
    data = bench.put_image("holiday/beach.png")
    await bench.run(bench.added("holiday/beach.png", data, partition=3))
    stored = bench.index.records[bench.collection.name]["holiday/beach.png"]
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.width, stored.height, stored.size_bytes) == (20, 10, len(data))
    (event,) = await bench.announced()
    assert (event.image_id, event.action) == ("holiday/beach.png", "upserted")
    assert (event.source_partition, event.source_offset) == (3, 0)
    assert not event.vector_reused
    assert event.timings_ms.decode > 0


async def test_a_removal_deletes_the_image(bench: Bench) -> None:
    data = bench.put_image("a.png")
    await bench.run(bench.added("a.png", data))
    await bench.run(bench.removed("a.png"))
    assert bench.ids == set()
    assert [event.action for event in await bench.announced()] == ["upserted", "removed"]


async def test_the_last_event_of_a_key_wins_within_a_batch(bench: Bench) -> None:
    a, b = bench.put_image("a.png"), bench.put_image("b.png", "blue")
    await bench.run(
        bench.removed("a.png"),
        bench.added("b.png", b),
        bench.added("a.png", a),
        bench.removed("b.png"),
    )
    assert bench.ids == {"a.png"}


async def test_replaying_changes_nothing_and_infers_nothing(bench: Bench) -> None:
    names = [f"{number}.png" for number in range(10)]
    records = [
        bench.added(name, bench.put_image(name, f"#0000{n:02x}")) for n, name in enumerate(names)
    ]
    await bench.run(*records)
    before, calls = dict(bench.index.records[bench.collection.name]), bench.embedder.image_calls
    await bench.run(*records)
    assert bench.index.records[bench.collection.name] == before
    assert bench.embedder.image_calls == calls
    assert bench.indexer.counters.vectors_inferred == len(names)
    assert bench.indexer.counters.vectors_reused == len(names)


async def test_copies_and_renames_are_inferred_once(bench: Bench) -> None:
    data = bench.put_image("a.png")
    bench.file("copy.png", data)
    await bench.run(bench.added("a.png", data), bench.added("copy.png", data))
    bench.file("renamed.png", data)
    await bench.run(bench.added("renamed.png", data), bench.removed("a.png"))
    assert bench.ids == {"copy.png", "renamed.png"}
    assert bench.indexer.counters.vectors_inferred == 1


@pytest.mark.slow
async def test_poison_is_dead_lettered_and_the_rest_of_the_batch_indexed(bench: Bench) -> None:
    good = [bench.added(f"{n}.png", bench.put_image(f"{n}.png", f"#{n:06x}")) for n in range(20)]
    text = bench.file("text.jpg", b"I am no picture")
    empty = bench.file("empty.jpg", b"")
    bad = [
        bench.added("text.jpg", text),
        bench.added("empty.jpg", empty),
        bench.record(b"garbage.jpg", b"{not json"),
        bench.record(None, b"{}"),
        bench.record(b"\xff\xfe", None),
    ]
    await bench.run(*good[:10], *bad, *good[10:])
    assert bench.ids == {f"{n}.png" for n in range(20)}
    letters = {letter.source_offset: letter for letter in await bench.dead_letters()}
    assert len(letters) == len(bad)
    letter = letters[bad[0].position.offset]
    assert letter.image_id == "text.jpg"
    assert "not a picture" in letter.reason
    assert (letter.error_class, letter.attempts) == ("Rejected", 1)
    assert (letter.source_topic, letter.source_partition) == ("images", 0)
    assert (letter.original_key, letter.original_value) == (bad[0].key, bad[0].value)
    assert "empty" in letters[bad[1].position.offset].reason
    assert letters[bad[2].position.offset].error_class == "InvalidEvent"


async def test_an_image_overwritten_with_garbage_is_no_longer_found(bench: Bench) -> None:
    await bench.run(bench.added("a.png", bench.put_image("a.png")))
    await bench.run(bench.added("a.png", bench.file("a.png", b"garbage")))
    assert bench.ids == set()
    assert len(await bench.dead_letters()) == 1


async def test_an_unreadable_event_keeps_the_indexed_image(bench: Bench) -> None:
    await bench.run(bench.added("a.png", bench.put_image("a.png")))
    await bench.run(bench.record(b"a.png", b"{not json"))
    assert bench.ids == {"a.png"}


async def test_a_missing_or_changed_file_is_left_to_its_newer_event(bench: Bench) -> None:
    bench.put_image("other.png")
    gone, changed = bench.put_image("gone.png"), bench.put_image("changed.png")
    records = await bench.logged(bench.added("gone.png", gone), bench.added("changed.png", changed))
    (bench.folder / "gone.png").unlink()
    newer = bench.put_image("changed.png", "green")
    await bench.logged(bench.removed("gone.png"), bench.added("changed.png", newer))
    await bench.run(*records)
    assert bench.ids == set()
    assert await bench.dead_letters() == []
    assert bench.indexer.counters.superseded == 2
    await bench.run(bench.added("changed.png", newer))
    assert bench.ids == {"changed.png"}


async def test_a_file_that_cannot_be_read_is_dead_lettered_after_its_attempts(
    bench: Bench,
) -> None:
    (bench.folder / "folder.png").mkdir()
    await bench.run(bench.added("folder.png", b"x"))
    (letter,) = await bench.dead_letters()
    assert letter.error_class == "IsADirectoryError"
    assert letter.attempts == bench.settings.max_attempts


@pytest.mark.slow
@pytest.mark.parametrize("server", ["embedder", "index", "log"])
async def test_a_server_that_is_down_is_waited_for(bench: Bench, server: str) -> None:
    fake = getattr(bench, server)
    fake.available = False
    work = asyncio.create_task(bench.run(bench.added("a.png", bench.put_image("a.png"))))
    await asyncio.sleep(0.2)
    assert not work.done()
    fake.available = True
    await asyncio.wait_for(work, 5)
    assert bench.ids == {"a.png"}
    assert len(await bench.announced()) == 1
    assert await bench.dead_letters() == []


async def test_an_image_that_the_index_rejects_is_dead_lettered(bench: Bench) -> None:
    class Picky(FakeImageIndex):
        async def upsert(self, collection, records):  # type: ignore[no-untyped-def]
            kept = [record for record in records if record.image_id != "bad.png"]
            await super().upsert(collection, kept)
            return {"bad.png": "no room for it"}

    picky = Picky(bench.index.collections, bench.index.records)  # type: ignore[arg-type]
    picky.collections, picky.records = bench.index.collections, bench.index.records
    picky.available = True
    bench.indexer._index = picky
    await bench.run(
        bench.added("bad.png", bench.put_image("bad.png")),
        bench.added("good.png", bench.put_image("good.png", "blue")),
    )
    assert bench.ids == {"good.png"}
    (letter,) = await bench.dead_letters()
    assert (letter.image_id, letter.reason) == ("bad.png", "no room for it")


async def test_too_much_poison_stops_before_anything_is_dead_lettered(bench: Bench) -> None:
    records = [bench.record(f"{n}.jpg".encode(), b"garbage") for n in range(80)]
    with pytest.raises(TooMuchPoison, match="80 of the last 80"):
        await bench.run(*records)
    assert await bench.dead_letters() == []


def test_the_poison_limit_counts_a_window_of_records() -> None:
    limit = PoisonLimit(share=0.5, window=100)
    limit.note(good=0, bad=49)  # Too few to judge.
    limit.note(good=60, bad=0)
    limit.note(good=0, bad=40)
    with pytest.raises(TooMuchPoison):
        limit.note(good=0, bad=60)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
async def test_every_example_is_handled_twice(bench: Bench, path: Path) -> None:
    case = json.loads(path.read_text())
    value = None if case["value"] is None else json.dumps(case["value"]).encode()
    # The files are missing, and newer records remove the images.
    (record,) = await bench.logged(bench.record(case["key"].encode(), value))
    await bench.logged(bench.removed(case["key"]))
    for _ in range(2):
        await bench.run(record)
    assert await bench.dead_letters() == []


class Commits:
    """Records what was committed, and fails while `fail` is set."""

    def __init__(self) -> None:
        self.made: list[dict[int, int]] = []
        self.fail = False

    async def __call__(self, next_offsets: Mapping[int, int]) -> None:
        if self.fail:
            raise Unavailable("the broker is down")
        self.made.append(dict(next_offsets))


async def pipeline_of(bench: Bench, commits: Commits) -> IndexingPipeline:
    pipeline = IndexingPipeline(bench.indexer, commits, capacity=16)
    pipeline.start()
    return pipeline


def some(bench: Bench, count: int, prefix: str = "p") -> Sequence[LogRecord]:
    return [
        bench.added(f"{prefix}{n}.png", bench.put_image(f"{prefix}{n}.png", f"#{n:06x}"), n % 2)
        for n in range(count)
    ]


async def test_the_next_offset_of_each_partition_is_committed_after_the_write(
    bench: Bench,
) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)
    pipeline.put(some(bench, 6))
    assert await pipeline.drain(5)
    assert commits.made == [{0: 3, 1: 3}]
    await pipeline.stop()


@pytest.mark.slow
async def test_nothing_is_committed_while_the_index_is_down(bench: Bench) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)
    bench.index.available = False
    pipeline.put(some(bench, 3))
    assert not await pipeline.drain(0.2)
    assert commits.made == []
    bench.index.available = True
    assert await pipeline.drain(5)
    assert commits.made == [{0: 2, 1: 1}]
    await pipeline.stop()


@pytest.mark.slow
async def test_a_commit_that_fails_is_tried_until_the_broker_takes_it(bench: Bench) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)
    commits.fail = True
    pipeline.put(some(bench, 2))
    assert not await pipeline.drain(0.3)
    commits.fail = False
    pipeline.put(some(bench, 2, "q"))
    assert await pipeline.drain(5)
    assert commits.made == [{0: 1, 1: 1}, {0: 2, 1: 2}]
    await pipeline.stop()


async def test_batches_are_applied_in_order_though_prepared_ahead(bench: Bench) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)
    data = bench.put_image("a.png")
    for _ in range(5):
        pipeline.put([bench.added("a.png", data)])
        pipeline.put([bench.removed("a.png")])
    assert await pipeline.drain(5)
    assert bench.ids == set()
    assert [made[0] for made in commits.made] == list(range(1, 11))
    await pipeline.stop()


async def test_a_full_pipeline_is_full_until_there_is_room(bench: Bench) -> None:
    pipeline = await pipeline_of(bench, Commits())
    bench.index.available = False
    pipeline.put(some(bench, 16))
    assert pipeline.is_full
    waiting = asyncio.create_task(pipeline.wait_for_room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    bench.index.available = True
    await asyncio.wait_for(waiting, 5)
    assert not pipeline.is_full
    await pipeline.stop()


async def test_dropped_batches_are_neither_written_nor_committed(bench: Bench) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)
    bench.embedder.available = False
    pipeline.put(some(bench, 4))
    await asyncio.sleep(0.05)
    await pipeline.drop()
    bench.embedder.available = True
    assert pipeline.in_flight == 0
    pipeline.put([bench.added("new.png", bench.put_image("new.png", "blue"), partition=5)])
    assert await pipeline.drain(5)
    assert bench.ids == {"new.png"}
    assert commits.made == [{5: 1}]
    await pipeline.stop()


async def test_a_bug_ends_the_pipeline_and_commits_nothing(bench: Bench) -> None:
    commits = Commits()
    pipeline = await pipeline_of(bench, commits)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    bench.indexer.apply = broken  # type: ignore[assignment,method-assign]
    pipeline.put(some(bench, 2))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(pipeline.failed, 5)
    assert commits.made == []
    await pipeline.stop()
