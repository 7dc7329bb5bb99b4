"""The composition root: every client of a server is built here, from settings.

So a client's setting applies wherever such a client is used. The modules of the clients are
imported when one is built, because importing them takes longer than most commands run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from adapters.embedder.port import Embedder
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog, GroupAdmin
from adapters.settings import ServerSettings

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from adapters.embedder.control import TritonControl
    from adapters.embedder.triton import TritonEmbedder
    from adapters.index.weaviate import WeaviateIndex
    from adapters.log.kafka import KafkaEventLog
    from adapters.log.kafka_admin import KafkaGroupAdmin

CHECK_SECONDS: Final = 120.0
"""Time limit for the first inference of a model that was just loaded."""


def connect_log(settings: ServerSettings) -> KafkaEventLog:
    """The event log; it connects at its first use."""
    from adapters.log.kafka import KafkaEventLog

    return KafkaEventLog(settings.kafka_bootstrap_servers, timeout=settings.kafka_timeout)


def connect_admin(settings: ServerSettings) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    """Kafka's administration client, connected within the context."""
    from adapters.log.kafka_admin import admin_client

    return admin_client(settings.kafka_bootstrap_servers)


def connect_groups(settings: ServerSettings) -> KafkaGroupAdmin:
    """The administration of consumer groups; it connects for each call."""
    from adapters.log.kafka_admin import KafkaGroupAdmin

    return KafkaGroupAdmin(settings.kafka_bootstrap_servers)


def connect_index(settings: ServerSettings) -> WeaviateIndex:
    """The index; it connects at its first use."""
    from adapters.index.weaviate import WeaviateIndex

    key = settings.weaviate_api_key
    return WeaviateIndex(
        settings.weaviate_url,
        grpc_host=settings.weaviate_grpc_host,
        grpc_port=settings.weaviate_grpc_port,
        api_key=key.get_secret_value() if key else None,
    )


def connect_embedder(settings: ServerSettings) -> TritonEmbedder:
    """The embedder; it connects at its first use."""
    from adapters.embedder.triton import TritonEmbedder

    return TritonEmbedder(
        settings.triton_url,
        timeout=settings.triton_timeout,
        concurrency=settings.triton_concurrency,
    )


def connect_model_control(settings: ServerSettings) -> TritonControl:
    """A client that loads and unloads Triton's models. Needs a running event loop."""
    from adapters.embedder.control import TritonControl

    patient = settings.model_copy(update={"triton_timeout": CHECK_SECONDS})
    return TritonControl(settings.triton_url, connect_embedder(patient))


@dataclass(frozen=True, slots=True)
class Connections:
    """The clients of each server; each connects at its first use."""

    embedder: Embedder
    index: ImageIndex
    log: EventLog
    groups: GroupAdmin


@asynccontextmanager
async def connections(settings: ServerSettings) -> AsyncIterator[Connections]:
    """Clients of the servers that the settings name, closed at the end."""
    found = Connections(
        connect_embedder(settings),
        connect_index(settings),
        connect_log(settings),
        connect_groups(settings),
    )
    try:
        yield found
    finally:
        await asyncio.gather(found.embedder.close(), found.index.close(), found.log.close())
