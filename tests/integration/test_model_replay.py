"""A replay into a collection that knows every picture's content asks nothing of the model."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from adapters.consumer_groups import progress
from adapters.event_log import Message
from adapters.kafka_log import KafkaEventLog
from adapters.ports import ImageRecord
from adapters.triton_clip import TritonEmbedder
from adapters.weaviate_index import WeaviateIndex
from schemas.codec import decode
from schemas.events import ImageAdded, ImageIndexed
from schemas.topics import IMAGES, IMAGES_INDEXED
from stack.supervisor import ALIVE_SECONDS
from tests.conftest import Servers, running_servers
from tests.e2e.conftest import eventually
from tests.integration.indexing_processes import IndexerProcess

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
PICTURES = 10_000
BATCH = 500


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers whose log and collection hold this file's pictures alone."""
    with running_servers(tmp_path_factory) as running:
        yield running


async def inferences(servers: Servers) -> int:
    """How many pictures Triton has embedded since it started."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{servers.triton_url}/v2/models/lite_image/stats")
    return int(answer.json()["model_stats"][0]["inference_count"])


async def begin_at_end(broker: str, group: str) -> None:
    """Let a group begin at what is published after this."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(IMAGES.name, number) for number in range(IMAGES.partitions)]
        consumer.assign(places)
        await consumer.commit(await consumer.end_offsets(places))
    finally:
        await consumer.stop()


@pytest.mark.timeout(600)
async def test_a_replay_of_known_content_makes_no_inference(
    servers: Servers, tmp_path: Path
) -> None:
    prefix = uuid4().hex[:8]
    index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    embedder = TritonEmbedder(servers.triton_url)
    spec = await embedder.spec("lite")
    collection = await index.ensure_collection(spec)
    names = {f"{prefix}/{n}.jpg": hashlib.sha256(f"{prefix}{n}".encode()) for n in range(PICTURES)}
    random = np.random.default_rng(1)

    def record(name: str) -> ImageRecord:
        vector = random.normal(size=spec.dimension)
        return ImageRecord(
            image_id=name,
            uri=f"file:///nowhere/{name}",
            sha256=names[name].hexdigest(),
            media_type="image/jpeg",
            size_bytes=1,
            width=1,
            height=1,
            modified_at=WHEN,
            added_at=WHEN,
            vector=(vector / np.linalg.norm(vector)).tolist(),
        )

    def message(name: str) -> Message:
        event = ImageAdded(
            image_id=name,
            uri=f"file:///nowhere/{name}",
            sha256=names[name].hexdigest(),
            size_bytes=1,
            media_type="image/jpeg",
            modified_at=WHEN,
            added_at=WHEN,
        )
        return Message(name, event)

    ordered = list(names)
    group = collection.group
    await begin_at_end(servers.kafka, group)  # what other tests have left in the log is not known
    async with KafkaEventLog(servers.kafka) as log:
        for start in range(0, PICTURES, BATCH):
            part = ordered[start : start + BATCH]
            assert not await index.upsert(collection, [record(name) for name in part])
            await log.publish(IMAGES, [message(name) for name in part])
    before, began = await inferences(servers), time.monotonic()
    indexer = IndexerProcess(
        {
            "KAFKA_BOOTSTRAP_SERVERS": servers.kafka,
            "TRITON_URL": servers.triton_url,
            "WEAVIATE_URL": servers.weaviate_url,
            "WEAVIATE_GRPC_PORT": str(servers.weaviate_grpc_port),
        },
        tmp_path / "indexer.log",
        tmp_path / "ready",
    )
    try:
        await indexer.start()

        async def caught_up() -> bool:
            found = await progress(servers.kafka, IMAGES, group)
            return found.lag == 0

        await eventually(caught_up, seconds=400, every=1.0)
        # The launcher embeds a blank picture every few seconds, to see whether Triton can.
        looks = (time.monotonic() - began) / ALIVE_SECONDS + 1
        assert await inferences(servers) - before <= looks
        async with KafkaEventLog(servers.kafka) as log:
            told = [decode(ImageIndexed, r.value) async for r in log.read_all(IMAGES_INDEXED)]
        reused = [event.image_id for event in told if event.vector_reused]
        assert set(reused) >= names.keys()
        held = {image_id async for image_id, _ in index.stored(collection)}
        assert held >= names.keys()
        assert await indexer.stop() == 0
    finally:
        indexer.kill()
        async with KafkaEventLog(servers.kafka) as log:
            await log.publish(IMAGES, [Message(name, None) for name in ordered])
        await index.delete(collection, ordered)
        await index.close()
        await embedder.close()
