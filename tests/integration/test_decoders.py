"""Real servers: a picture that its decoder does not survive stops nothing but itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.log.kafka_admin import KafkaGroupAdmin
from schemas.topics import IMAGES
from tests.conftest import Servers
from tests.support import hostile_tasks
from tests.support.indexing_processes import Workbench, eventually, workbench

pytestmark = pytest.mark.timeout(180)

BAD = {
    "crash": (hostile_tasks.SEGFAULT, "DecoderCrashed"),
    "hang": (hostile_tasks.LOOP, "DecoderTimeout"),
    "hog": (hostile_tasks.EAT, "DecoderMemory"),
}


@pytest.fixture
async def bench(servers: Servers, tmp_path: Path) -> AsyncIterator[Workbench]:
    async with workbench(servers, tmp_path) as bench:
        yield bench


async def test_each_failing_image_has_one_dead_letter_and_the_partition_continues(
    bench: Workbench,
) -> None:
    good = bench.put_images(20)
    bad = []
    for name, (data, _) in BAD.items():
        image_id = f"{bench.prefix}/{name}.jpg"
        bad.append(bench.added(image_id, bench.file(image_id, data)))
        del bench.expected[image_id]
    indexer = bench.indexer(decode_workers=2, decode_seconds=10)
    indexer.module = ("tests.support.hostile_indexer",)
    await indexer.start()
    await bench.publish([*good[:10], *bad, *good[10:]])
    await bench.settles(90)
    later = bench.put_images(5, "later")
    await bench.publish(later)
    await bench.settles()

    async def reported() -> bool:
        found = {letter.image_id.split("/")[-1] for letter in await bench.dead_letters()}
        return found == {f"{name}.jpg" for name in BAD}

    await eventually(reported, seconds=60, what=bench.log_tails)
    classes = {letter.image_id: letter.error_class for letter in await bench.dead_letters()}
    assert classes == {f"{bench.prefix}/{name}.jpg": kind for name, (_, kind) in BAD.items()}

    async def committed() -> bool:
        groups = KafkaGroupAdmin(bench.servers.kafka)
        return (await groups.progress(IMAGES, bench.collection.group)).lag == 0

    await eventually(committed, seconds=60, what=bench.log_tails)
    assert indexer.process is not None
    assert indexer.process.poll() is None
    assert await asyncio.wait_for(indexer.stop(), 60) == 0
