"""Real servers: faults that once stopped indexers for good, or made them lose images."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from PIL import Image

from adapters.log.kafka_admin import KafkaGroupAdmin
from adapters.log.port import Message
from schemas.topics import IMAGES
from tests.conftest import Servers
from tests.support.indexing_processes import Workbench, eventually, workbench

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def bench(servers: Servers, tmp_path: Path) -> AsyncIterator[Workbench]:
    async with workbench(servers, tmp_path) as bench:
        yield bench


class Assigned(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells when the group has formed anew."""

    def __init__(self) -> None:
        self.reported = asyncio.Event()

    def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        return None

    def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        self.reported.set()


async def join_and_leave(bench: Workbench) -> None:
    """Two rebalances, by a member that reads and commits nothing."""
    listener = Assigned()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bench.servers.kafka,
        group_id=bench.collection.group,
        enable_auto_commit=False,
        partition_assignment_strategy=(StickyPartitionAssignor,),
    )
    consumer.subscribe([IMAGES.name], listener=listener)
    await consumer.start()
    try:
        await asyncio.wait_for(listener.reported.wait(), 60)
    finally:
        await consumer.stop()


def slow_to_decode(bench: Workbench, number: int) -> Message:
    """A picture of six megapixels, of few bytes."""
    image_id = f"{bench.prefix}/large{number}.png"
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000), (number, 90, 200 - number)).save(buffer, "PNG", compress_level=1)
    return bench.added(image_id, bench.file(image_id, buffer.getvalue()))


async def test_an_indexer_works_after_rebalances_during_decoding(
    bench: Workbench,
) -> None:
    """Each time some are decoded and wait for the others of their chunk, or for a slow Triton."""
    indexer = bench.indexer(decode_workers=1, embed_in_flight=1, rebalance_grace=0.2)
    await indexer.start()
    await bench.publish(bench.put_images(1, "warm"))
    await bench.settles()
    bench.triton.delay = 20.0
    await bench.publish([slow_to_decode(bench, number) for number in range(60)])
    for _ in range(5):
        await asyncio.sleep(0.5)
        await join_and_leave(bench)
    bench.triton.delay = 0.0
    await bench.settles()
    assert "records in flight are dropped" in indexer.log.read_text()
    assert indexer.process is not None
    assert indexer.process.poll() is None
    assert await bench.dead_letters() == []


async def test_nothing_is_committed_while_the_root_is_missing(
    bench: Workbench,
) -> None:
    root = bench.folder / bench.prefix
    away = bench.folder / "away"
    messages = bench.put_images(40)
    root.rename(away)
    await bench.publish(messages)
    indexer = bench.indexer(
        images_sources=f"{bench.prefix}={root.as_uri()}", batch_records=16, stuck_seconds=6
    )
    await indexer.start()

    async def missing_folder_logged() -> bool:
        return f"the folder {root} is missing" in indexer.log.read_text()

    await eventually(missing_folder_logged, seconds=30, what=bench.log_tails)
    await asyncio.sleep(9)
    # It waits, which is no reason to restart, and it commits nothing of these.
    assert indexer.process is not None
    assert indexer.process.poll() is None
    group = bench.collection.group
    assert (await KafkaGroupAdmin(bench.servers.kafka).progress(IMAGES, group)).lag >= len(messages)
    away.rename(root)
    await bench.settles()
    assert await bench.dead_letters() == []
    assert indexer.process.poll() is None


async def test_an_absent_file_is_judged_by_what_the_log_holds(bench: Workbench) -> None:
    indexer = bench.indexer()
    gone, left = bench.put_images(20, "gone"), bench.put_images(20, "left")
    for message in gone:
        (bench.folder / message.key).unlink()
    # The log has removals of the first half, and none of the others.
    await bench.publish([*gone, *left, *(bench.removed(message.key) for message in gone[:10])])
    vanished = {message.key for message in gone[10:]}
    for key in vanished:
        del bench.expected[key]
    await indexer.start()
    await bench.settles()

    async def all_dead_lettered() -> bool:
        return {letter.image_id for letter in await bench.dead_letters()} == vanished

    await eventually(all_dead_lettered, seconds=30, what=bench.log_tails)
    assert {letter.error_class for letter in await bench.dead_letters()} == {"Vanished"}


async def test_a_foreign_record_of_the_largest_size_becomes_a_letter(bench: Workbench) -> None:
    key = f"{bench.prefix}/foreign.jpg"
    await bench.log.publish(IMAGES, [Message(key, b"\xff" * 6_500_000)])
    await bench.publish(bench.put_images(3))
    indexer = bench.indexer()
    await indexer.start()
    await bench.settles()

    async def reported() -> bool:
        return bool(await bench.dead_letters())

    await eventually(reported, seconds=30, what=bench.log_tails)
    (letter,) = await bench.dead_letters()
    assert letter.original_value_bytes == 6_500_000
    assert indexer.process is not None
    assert indexer.process.poll() is None
