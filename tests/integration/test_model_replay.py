"""A replay into a collection that knows every image's content makes no inference.

This also holds for a replay that adds new facts to images of an earlier version.
"""

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

from adapters.embedder.triton import TritonEmbedder
from adapters.index import collections as weaviate_collections
from adapters.index import writes as weaviate_writes
from adapters.index.facts import FACTS_VERSION
from adapters.index.port import ImageRecord, Match
from adapters.index.schema import properties, stored_properties
from adapters.index.weaviate import WeaviateIndex
from adapters.log.kafka import KafkaEventLog
from adapters.log.kafka_admin import KafkaGroupAdmin
from adapters.log.port import Message
from adapters.naming import collection_name
from schemas.codec import decode
from schemas.events import ImageAdded, ImageIndexed
from schemas.topics import IMAGES, IMAGES_INDEXED
from stack.supervisor import ALIVE_SECONDS
from tests.conftest import Servers, running_servers
from tests.e2e.conftest import eventually
from tests.support.indexing_processes import IndexerProcess
from tests.support.metadata_builders import dated, image_with_metadata

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
IMAGE_COUNT = 10_000
BATCH = 500


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers whose log and collection hold this file's pictures alone."""
    with running_servers(tmp_path_factory) as running:
        yield running


def indexer_of(servers: Servers, folder: Path) -> IndexerProcess:
    """One that is not started yet."""
    return IndexerProcess(
        {
            "KAFKA_BOOTSTRAP_SERVERS": servers.kafka,
            "TRITON_URL": servers.triton_url,
            "WEAVIATE_URL": servers.weaviate_url,
            "WEAVIATE_GRPC_PORT": str(servers.weaviate_grpc_port),
        },
        folder / "indexer.log",
        folder / "ready",
    )


async def inferences(servers: Servers) -> int:
    """How many pictures Triton has embedded since it started."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{servers.triton_url}/v2/models/lite_image/stats")
    return int(answer.json()["model_stats"][0]["inference_count"])


@pytest.mark.timeout(600)
async def test_a_replay_of_known_content_makes_no_inference(
    servers: Servers, tmp_path: Path
) -> None:
    prefix = uuid4().hex[:8]
    index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    embedder = TritonEmbedder(servers.triton_url)
    spec = await embedder.spec("lite")
    collection = await index.ensure_collection(spec)
    names = {
        f"{prefix}/{n}.jpg": hashlib.sha256(f"{prefix}{n}".encode()) for n in range(IMAGE_COUNT)
    }
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
            facts_version=FACTS_VERSION,
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
    async with KafkaEventLog(servers.kafka) as log:
        for start in range(0, IMAGE_COUNT, BATCH):
            part = ordered[start : start + BATCH]
            assert not await index.upsert(collection, [record(name) for name in part])
            await log.publish(IMAGES, [message(name) for name in part])
    before, began = await inferences(servers), time.monotonic()
    indexer = indexer_of(servers, tmp_path)
    try:
        await indexer.start()

        async def caught_up() -> bool:
            found = await KafkaGroupAdmin(servers.kafka).progress(IMAGES, group)
            return found.lag == 0

        await eventually(caught_up, seconds=400, every=1.0)
        # The launcher embeds a blank picture every few seconds, to see whether Triton can.
        looks = (time.monotonic() - began) / ALIVE_SECONDS + 1
        assert await inferences(servers) - before <= looks
        async with KafkaEventLog(servers.kafka) as log:
            reported = [decode(ImageIndexed, r.value) async for r in log.read_all(IMAGES_INDEXED)]
        reused = [event.image_id for event in reported if event.vector_reused]
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


async def commit_as_before(broker: str, group: str) -> None:
    """As an earlier version that has read everything."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        topic_partitions = [
            TopicPartition(IMAGES.name, number) for number in range(IMAGES.partitions)
        ]
        consumer.assign(topic_partitions)
        await consumer.commit(await consumer.end_offsets(topic_partitions))
    finally:
        await consumer.stop()


@pytest.mark.timeout(300)
async def test_images_of_an_earlier_version_get_their_facts_and_keep_their_vectors(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    spec = await TritonEmbedder(servers.triton_url).spec("lite")
    async with httpx.AsyncClient(base_url=servers.weaviate_url, trust_env=False) as client:
        await client.delete(f"/v1/schema/{collection_name(spec)}")
    photograph = image_with_metadata(about=dated(taken="2024:05:06 07:08:09"), size=(48, 32))
    path = tmp_path / "photograph.heic"
    path.write_bytes(photograph)
    event = ImageAdded(
        image_id=path.name,
        uri=path.as_uri(),
        sha256=hashlib.sha256(photograph).hexdigest(),
        size_bytes=len(photograph),
        media_type="image/heic",
        modified_at=WHEN,
        added_at=WHEN,
    )
    vector = np.random.default_rng(2).normal(size=spec.dimension)
    stored = ImageRecord(
        image_id=event.image_id,
        uri=event.uri,
        sha256=event.sha256,
        media_type=event.media_type,
        size_bytes=event.size_bytes,
        width=48,
        height=32,
        modified_at=WHEN,
        added_at=WHEN,
        vector=(vector / np.linalg.norm(vector)).tolist(),
    )
    with monkeypatch.context() as before:
        known = [each for each in properties() if each.name != "facts_version"]
        before.setattr(weaviate_collections, "properties", lambda: known)
        reported = {k: v for k, v in stored_properties(stored).items() if k != "facts_version"}
        before.setattr(weaviate_writes, "stored_properties", lambda _: reported)
        collection = await index.ensure_collection(spec)
        assert not await index.upsert(collection, [stored])
    async with KafkaEventLog(servers.kafka) as log:
        await log.publish(IMAGES, [Message(event.image_id, event)])
    await commit_as_before(servers.kafka, collection.group)
    before_it, began = await inferences(servers), time.monotonic()
    indexer = indexer_of(servers, tmp_path)
    try:
        await indexer.start()

        async def corrected() -> Match | None:
            (found,) = await index.search(
                collection, stored.vector, 1, details=["taken_at", "media_type", "width"]
            )
            return found if found.details["taken_at"] is not None else None

        found = await eventually(corrected, seconds=120, every=0.5)
        assert found is not None
        assert found.details["taken_at"] == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
        assert (found.details["media_type"], found.details["width"]) == ("image/jpeg", 48)
        assert found.score == pytest.approx(1, abs=1e-5)
        looks = (time.monotonic() - began) / ALIVE_SECONDS + 1
        assert await inferences(servers) - before_it <= looks
        (again,) = (await index.known_vectors(collection, [stored.sha256])).values()
        assert again.facts_version == FACTS_VERSION
        assert await indexer.stop() == 0
    finally:
        indexer.kill()
        await index.close()
