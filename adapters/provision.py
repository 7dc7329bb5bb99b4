"""Create the topics and the active collection if they are missing (idempotent).

Compose and the local launcher run `python -m adapters.provision` before all other processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from adapters.bootstrap import connect_admin, connections
from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index.port import Collection, ImageIndex
from adapters.log.kafka_errors import kafka_errors
from adapters.log.port import EventLog, Message
from adapters.logging import configure_logging
from adapters.retry import until_available
from adapters.settings import ServerSettings, exit_on_bad_settings
from schemas.codec import InvalidEvent, decode
from schemas.events import ModelActivated, ModelStep
from schemas.topics import IMAGES, IMAGES_INDEXED, MODELS, PERSONAL, TOPICS, Topic

logger = logging.getLogger(__name__)


async def provision_topics(settings: ServerSettings) -> None:
    """Create missing topics, add missing partitions, and set each topic's configuration.

    Raises:
        Unavailable: the broker does not answer, or refuses it.
    """
    wanted = [
        topic.kept_for(settings.retention_days)
        if settings.retention_days and topic in PERSONAL
        else topic
        for topic in TOPICS
    ]
    with kafka_errors("provision topics"):
        async with connect_admin(settings) as admin:
            existing = set(await admin.list_topics())
            await _create(
                admin,
                {t: _partitions(t, settings) for t in wanted if t.name not in existing},
                replication_factor=settings.kafka_replication_factor,
            )
            await _align(admin, settings, [t for t in wanted if t.name in existing])


async def create_topic(settings: ServerSettings, topic: Topic) -> None:
    """Create one topic with its own configuration; an existing one is no error.

    Raises:
        Unavailable: the broker does not answer, or refuses it.
    """
    with kafka_errors(f"create topic {topic.name}"):
        async with connect_admin(settings) as admin:
            await _create(admin, {topic: topic.partitions}, replication_factor=1)


def _partitions(topic: Topic, settings: ServerSettings) -> int:
    return settings.images_partitions if topic in (IMAGES, IMAGES_INDEXED) else topic.partitions


async def _create(
    admin: AIOKafkaAdminClient, missing: Mapping[Topic, int], *, replication_factor: int
) -> None:
    if not missing:
        return
    answer = await admin.create_topics(
        [
            NewTopic(
                topic.name,
                num_partitions=partitions,
                replication_factor=replication_factor,
                topic_configs=topic.config(),
            )
            for topic, partitions in missing.items()
        ]
    )
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise Unavailable(
                f"create topic {name}: {error.__name__} {' '.join(map(str, message))}"
            )
    logger.info("created topics: %s", ", ".join(topic.name for topic in missing))


async def _align(
    admin: AIOKafkaAdminClient, settings: ServerSettings, present: list[Topic]
) -> None:
    if not present:
        return
    described = await admin.describe_topics([topic.name for topic in present])
    counts: Mapping[str, int] = {
        item["topic"]: len(item["partitions"]) for item in described if not item["error_code"]
    }
    short = {
        topic.name: NewPartitions(_partitions(topic, settings))
        for topic in present
        # More partitions would move the keys of a compacted log, so `images` keeps its number.
        if not topic.compacted and 0 < counts.get(topic.name, 0) < _partitions(topic, settings)
    }
    if short:
        await admin.create_partitions(short)
        logger.info("added partitions: %s", ", ".join(short))
    await admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=topic.config())
            for topic in present
        ]
    )


async def provision_collection(
    embedder: Embedder, index: ImageIndex, log: EventLog, model_name: str
) -> None:
    """Create the model's collection, and activate one if none is active: the collection that the
    log names if it exists, else this one.

    An alias on a collection of the same model but another version is moved, too: Triton no longer
    serves the version that embeds queries for it.
    """
    spec = await embedder.spec(model_name)
    collection = await index.ensure_collection(spec)
    active = await index.active() or await _logged_active(index, log)
    if active is None or (active.model_name == model_name and active.model_version != spec.version):
        active = collection
    if await index.active() == active:
        logger.info("the active collection is %s", active.name)
    else:
        await index.activate(active)
        logger.info("activated %s", active.name)
    await log_active(index, log)


async def _logged_active(index: ImageIndex, log: EventLog) -> Collection | None:
    """The collection that is active according to the log, if it exists."""
    logged = await newest_activation(log)
    try:
        return await index.find(logged.collection) if logged is not None else None
    except Rejected:
        return None  # Its description does not state its model.


async def recovered_collection(index: ImageIndex, log: EventLog, spec: ModelSpec) -> Collection:
    """The model's collection, created if it is missing, and activated if none is active.

    Both are necessary after Weaviate has lost its data.

    Raises:
        Unavailable: a server does not answer.
    """
    collection = await index.ensure_collection(spec)
    await activate_if_none_is(index, log, collection)
    return collection


async def activate_if_none_is(index: ImageIndex, log: EventLog, collection: Collection) -> None:
    """Activate this collection if none is active, unless the log names another model as the
    active one.

    Raises:
        Unavailable: a server does not answer.
    """
    if await index.active() is not None:
        return
    logged = await newest_activation(log)
    if logged is None or logged.model_name == collection.model_name:
        await index.activate(collection)
        logger.warning("no collection was active: activated %s", collection.name)
        await log_active(index, log)


async def newest_activation(log: EventLog) -> ModelActivated | None:
    """The newest activation of a model in the log; None if there is none.

    Raises:
        Unavailable: the log cannot be read.
    """
    newest: ModelActivated | None = None
    # By offset, not by time, as clocks may be set back; the topic has one partition.
    async for record in log.read_all(MODELS):
        try:
            event = decode(ModelActivated, record.value)
        except InvalidEvent:
            continue
        if event.step in (ModelStep.ACTIVATED, ModelStep.ROLLED_BACK):
            newest = event
    return newest


async def log_active(
    index: ImageIndex, log: EventLog, step: ModelStep = ModelStep.ACTIVATED
) -> None:
    """Write to the log which collection is active, unless it already says so.

    The alias decides, so this also repairs a crash between moving the alias and writing the event.
    A log without any activation is new or has lost everything, so events for the collections of
    other models, which are kept current, are written, too.

    Raises:
        Unavailable: a server does not answer.
    """
    active = await index.active()
    logged = await newest_activation(log)
    if active is None or (logged is not None and logged.collection == active.name):
        return
    events = [] if logged is not None else await _backfill_events(index, active)
    events.append(_event(step, active, logged.collection if logged else None))
    await log.publish(MODELS, [Message(key=event.model_name, event=event) for event in events])


async def _backfill_events(index: ImageIndex, active: Collection) -> list[ModelActivated]:
    """Events for an empty log about the collections other than the active one."""
    others = {
        each.model_name: each
        for each in await index.all_collections()
        if each.model_name != active.model_name
    }
    return [_event(ModelStep.BACKFILLING, each, None) for each in others.values()]


def _event(step: ModelStep, collection: Collection, previous: str | None) -> ModelActivated:
    return ModelActivated(
        step=step,
        model_name=collection.model_name,
        model_version=collection.model_version,
        collection=collection.name,
        previous_collection=previous,
    )


async def provision(settings: ServerSettings) -> None:
    """Provision topics and collection; waits for servers that are still starting."""
    await until_available(
        lambda: provision_topics(settings), what="Kafka topics", maximum=2.0, give_up_after=120
    )
    async with connections(settings) as servers:
        await until_available(
            lambda: provision_collection(
                servers.embedder, servers.index, servers.log, settings.model_name
            ),
            what="collection",
            maximum=2.0,
            give_up_after=120,
        )


def main() -> None:
    """Provision from the environment's settings."""
    configure_logging()
    asyncio.run(provision(ServerSettings()))


if __name__ == "__main__":
    with exit_on_bad_settings():
        main()
