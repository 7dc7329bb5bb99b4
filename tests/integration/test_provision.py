"""Topics and the active collection, as they are on the real servers after provisioning."""

import asyncio
import uuid
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.weaviate import WeaviateIndex
from adapters.log.fake import FakeEventLog
from adapters.log.kafka import KafkaEventLog
from adapters.provision import provision, provision_collection, provision_topics
from adapters.settings import ServerSettings
from schemas.codec import decode
from schemas.events import ModelActivated
from schemas.topics import IMAGES, MODELS, TOPICS
from tests.conftest import Servers


@pytest.fixture
def settings(servers: Servers) -> ServerSettings:
    return ServerSettings(
        kafka_bootstrap_servers=servers.kafka,
        weaviate_url=servers.weaviate_url,
        weaviate_grpc_port=servers.weaviate_grpc_port,
        triton_url=servers.triton_url,
    )


async def described(bootstrap_servers: str) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """Topic -> number of partitions, and topic -> configuration."""
    names = [topic.name for topic in TOPICS]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        partitions = {
            item["topic"]: len(item["partitions"]) for item in await admin.describe_topics(names)
        }
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs: dict[str, dict[str, Any]] = {}
        for answer in await admin.describe_configs(resources):
            for _, _, _, name, entries in answer.resources:
                configs[name] = {entry[0]: entry[1] for entry in entries}
    finally:
        await admin.close()
    return partitions, configs


async def config_becomes(
    bootstrap_servers: str, wanted: dict[str, dict[str, str]], seconds: float = 30
) -> dict[str, dict[str, Any]]:
    """Wait until topics have these settings: the controller accepts them before brokers know."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        _, configs = await described(bootstrap_servers)
        found = {name: {key: configs[name][key] for key in wanted[name]} for name in wanted}
        if found == wanted or asyncio.get_running_loop().time() > deadline:
            assert found == wanted
            return configs
        await asyncio.sleep(0.1)


async def test_every_topic_has_the_settings_of_the_table(settings: ServerSettings) -> None:
    partitions, configs = await described(settings.kafka_bootstrap_servers)
    for topic in TOPICS:
        assert partitions[topic.name] == topic.partitions
        wanted = topic.config()
        assert {name: configs[topic.name][name] for name in wanted} == wanted
    assert configs["images"]["cleanup.policy"] == "compact"
    assert configs["searches"]["retention.ms"] == "-1"


async def test_provisioning_is_idempotent_and_repairs_changed_settings(
    settings: ServerSettings,
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, "feedback", {"retention.ms": "1000"})]
        )
    finally:
        await admin.close()
    address = settings.kafka_bootstrap_servers
    await config_becomes(address, {"feedback": {"retention.ms": "1000"}})
    before, _ = await described(address)
    await provision_topics(settings)
    await config_becomes(address, {"feedback": {"retention.ms": "-1"}})
    after, _ = await described(address)
    assert after == before


async def test_retention_of_user_events_can_be_set_and_reset(
    settings: ServerSettings,
) -> None:
    day = 24 * 3600 * 1000
    address = settings.kafka_bootstrap_servers
    # A day of records goes at a time.
    limited = {"retention.ms": str(30 * day), "segment.ms": str(day)}
    unlimited = {"retention.ms": "-1"}
    try:
        await provision_topics(settings.model_copy(update={"retention_days": 30}))
        await config_becomes(
            address,
            {
                "searches": limited,
                "feedback": limited,
                "images.dlq": unlimited,
                "images": unlimited,
            },
        )
    finally:
        await provision_topics(settings)
    configs = await config_becomes(address, {"searches": unlimited, "feedback": unlimited})
    usual = configs["images.dlq"]["segment.ms"]
    await config_becomes(address, {"searches": {"segment.ms": usual}})


async def test_the_number_of_partitions_of_the_compacted_log_stays(
    settings: ServerSettings,
) -> None:
    more = settings.model_copy(update={"images_partitions": IMAGES.partitions + 4})
    await provision_topics(more)
    async with asyncio.timeout(30):
        while True:
            partitions, _ = await described(settings.kafka_bootstrap_servers)
            if partitions["images.indexed"] == IMAGES.partitions + 4:
                break
            await asyncio.sleep(0.1)
    assert partitions["images"] == IMAGES.partitions
    # Leave what the other tests expect: partitions cannot be taken away, so the topic is remade.
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics(["images.indexed"])
        async with asyncio.timeout(30):
            while "images.indexed" in await admin.list_topics():
                await asyncio.sleep(0.1)
    finally:
        await admin.close()
    await provision_topics(settings)


async def test_the_collection_is_active_and_announced(settings: ServerSettings) -> None:
    await provision(settings)
    index = WeaviateIndex(settings.weaviate_url, grpc_port=settings.weaviate_grpc_port)
    try:
        active = await index.active()
    finally:
        await index.close()
    assert active is not None
    assert active.model_name == "lite"

    async def reported() -> list[ModelActivated]:
        async with KafkaEventLog(settings.kafka_bootstrap_servers) as log:
            return [decode(ModelActivated, record.value) async for record in log.read_all(MODELS)]

    before = await reported()
    assert before[-1].collection == active.name
    await provision(settings)
    assert await reported() == before, "once, however often it runs"


class TestActivation:
    """Which collection is activated, on in-memory servers."""

    async def run(self, spec: ModelSpec, index: FakeImageIndex, log: FakeEventLog) -> None:
        embedder = FakeEmbedder(served={spec.name: spec})
        await provision_collection(embedder, index, log, spec.name)

    async def test_another_version_of_the_model_takes_over(self, small_spec: ModelSpec) -> None:
        index, log = FakeImageIndex(), FakeEventLog()
        await self.run(small_spec, index, log)
        newer = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
        await self.run(newer, index, log)
        active = await index.active()
        assert active is not None
        assert active.model_version == newer.version
        reported = [decode(ModelActivated, record.value) async for record in log.read_all(MODELS)]
        assert reported[1].previous_collection == reported[0].collection

    async def test_another_model_is_not_activated(self, small_spec: ModelSpec) -> None:
        index, log = FakeImageIndex(), FakeEventLog()
        await self.run(small_spec, index, log)
        await self.run(small_spec.model_copy(update={"name": "other"}), index, log)
        active = await index.active()
        assert active is not None
        assert active.model_name == small_spec.name
        assert len(index.collections) == 2
