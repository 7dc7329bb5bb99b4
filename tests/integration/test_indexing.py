"""The indexing consumer as a process, on real servers that go away and come back."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.index.port import ImageFilter
from adapters.log.port import LogRecord
from schemas.codec import decode
from schemas.events import ImageIndexed
from schemas.topics import IMAGES, IMAGES_INDEXED
from tests.conftest import Servers
from tests.support.corpus_cases import INDEXED, cases
from tests.support.indexing_processes import Workbench, eventually, workbench

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def bench(servers: Servers, tmp_path: Path) -> AsyncIterator[Workbench]:
    async with workbench(servers, tmp_path) as bench:
        yield bench


async def test_an_image_is_indexed_and_removed_soon_after_its_events(
    bench: Workbench,
) -> None:
    await bench.indexer().start()
    await bench.publish(bench.put_images(1, "warm"))
    await bench.settles()
    started = time.monotonic()
    (message,) = bench.put_images(1)
    await bench.publish([message])
    await bench.settles(5)
    indexed = time.monotonic()
    await bench.publish([bench.removed(message.key)])
    await bench.settles(5)
    assert indexed - started < 2.0
    assert time.monotonic() - indexed < 2.0


async def test_poison_is_dead_lettered_and_its_batch_is_indexed(bench: Workbench) -> None:
    good = bench.put_images(60)
    bad_id = f"{bench.prefix}/bad.jpg"
    bad = bench.added(bad_id, bench.file(bad_id, b"a letter, not a picture"))
    del bench.expected[bad_id]
    await bench.publish([*good[:30], bad, *good[30:]])
    await bench.indexer().start()
    await bench.settles()

    async def dead_lettered() -> bool:
        return bool(await bench.dead_letters())

    # Its batch may be the last one, written after the others are found.
    await eventually(dead_lettered, seconds=60, what=bench.log_tails)
    (letter,) = await bench.dead_letters()
    assert letter.image_id == bad_id
    assert "not a picture" in letter.reason
    assert letter.original_value is not None
    source = [r async for r in bench.log.read_all(IMAGES) if r.key == bad_id.encode()]
    assert [(r.position.partition, r.position.offset) for r in source] == [
        (letter.source_partition, letter.source_offset)
    ]


async def test_each_odd_file_is_indexed_or_dead_lettered_as_documented(
    bench: Workbench,
) -> None:
    """The cases of `docs/formats.md`, all the way: through the log, the consumer and the index."""
    reasons: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    messages = []
    for number, case in enumerate(cases()):
        image_id = f"{bench.prefix}/odd-{number}"
        messages.append(bench.added(image_id, bench.file(image_id, case.data)))
        if case.outcome == INDEXED:
            sizes[image_id] = case.size
        else:
            reasons[image_id] = case.outcome
            del bench.expected[image_id]
    await bench.publish(messages)
    await bench.indexer().start()
    await bench.settles()

    async def all_dead_lettered() -> bool:
        return {letter.image_id for letter in await bench.dead_letters()} == reasons.keys()

    await eventually(all_dead_lettered, seconds=60, what=bench.log_tails)
    letters = await bench.dead_letters()
    assert len(letters) == len(reasons)
    assert {x.image_id for x in letters if reasons[x.image_id] not in x.reason} == set()
    found = await bench.index.search(
        bench.collection,
        [1.0] * bench.collection.dimension,
        len(sizes),
        where=ImageFilter(folder=f"{bench.prefix}/"),
        details=["width", "height"],
    )
    assert sizes == {m.image_id: (m.details["width"], m.details["height"]) for m in found}


async def test_copies_reuse_the_vector(bench: Workbench) -> None:
    await bench.indexer().start()
    image_id, data = bench.put_image("original")
    await bench.publish([bench.added(image_id, data)])
    await bench.settles()
    copy = f"{bench.prefix}/copy.jpg"
    await bench.publish([bench.added(copy, bench.file(copy, data)), bench.removed(image_id)])
    await bench.settles()
    announced = {event.image_id: event for event in await _announced(bench) if event.sha256}
    assert not announced[image_id].vector_reused
    assert announced[copy].vector_reused


async def _announced(bench: Workbench) -> list[ImageIndexed]:
    def ours(record: LogRecord) -> bool:
        return (record.key or b"").startswith(bench.prefix.encode())

    return [
        decode(ImageIndexed, record.value)
        async for record in bench.log.read_all(IMAGES_INDEXED)
        if ours(record)
    ]


async def test_an_indexer_killed_in_the_middle_loses_nothing(bench: Workbench) -> None:
    messages = bench.put_images(300)
    indexer = bench.indexer(batch_records=32)
    await indexer.start()
    await bench.publish(messages)
    for _ in range(3):
        await asyncio.sleep(0.7)
        indexer.kill()
        indexer.launch()
    await bench.settles(90)
    assert await bench.dead_letters() == []


async def test_sigterm_drains_and_exits_with_0(bench: Workbench) -> None:
    indexer = bench.indexer(batch_records=16)
    await indexer.start()
    await bench.publish(bench.put_images(150))
    await asyncio.sleep(0.5)
    assert await indexer.stop() == 0
    await indexer.start()
    await bench.settles()


@pytest.mark.parametrize("server", ["triton", "weaviate"])
async def test_a_server_that_is_away_is_waited_for(bench: Workbench, server: str) -> None:
    proxies = {"triton": [bench.triton], "weaviate": [bench.weaviate, bench.weaviate_grpc]}[server]
    indexer = bench.indexer(batch_records=16)
    await indexer.start()
    await bench.publish(bench.put_images(40, "before"))
    await asyncio.sleep(0.2)
    for proxy in proxies:
        await proxy.cut()
    await bench.publish(bench.put_images(40, "during"))
    await asyncio.sleep(4)
    assert indexer.process is not None
    assert indexer.process.poll() is None
    assert len(await bench.indexed()) < 80
    for proxy in proxies:
        await proxy.mend()
    await bench.settles()
    assert indexer.process.poll() is None
    assert await bench.dead_letters() == []


async def test_starting_before_the_servers_is_no_error(bench: Workbench) -> None:
    await bench.triton.cut()
    indexer = bench.indexer()
    indexer.launch()
    await bench.publish(bench.put_images(5))
    await asyncio.sleep(3)
    await bench.triton.mend()
    await bench.settles()


async def test_indexers_that_come_and_go_lose_and_repeat_nothing_visible(bench: Workbench) -> None:
    first, second = bench.indexer(batch_records=16), bench.indexer(batch_records=16)
    await first.start()
    messages = bench.put_images(400)
    await bench.publish(messages[:200])
    await second.start()
    # A removal after its addition, while partitions change hands.
    gone = [message.key for message in messages[:200:5]]
    await bench.publish([bench.removed(key) for key in gone])
    await bench.publish(messages[200:])
    assert await second.stop() == 0
    await second.start()
    first.kill()
    await bench.settles(90)
    assert await bench.dead_letters() == []
