"""The real servers behind the ports, for commands that need them for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.embedder.port import Embedder
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from adapters.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Connections:
    """One client for each server; each connects at its first use."""

    embedder: Embedder
    index: ImageIndex
    log: EventLog


@asynccontextmanager
async def connections(settings: ServerSettings) -> AsyncIterator[Connections]:
    """Clients of the servers that the settings name, closed at the end."""
    # The clients take longer to import than most commands to run.
    from adapters.embedder.triton import TritonEmbedder
    from adapters.log.kafka import KafkaEventLog
    from adapters.provision import connect_index

    found = Connections(
        TritonEmbedder(settings.triton_url, timeout=settings.triton_timeout),
        connect_index(settings),
        KafkaEventLog(settings.kafka_bootstrap_servers),
    )
    try:
        yield found
    finally:
        await asyncio.gather(found.embedder.close(), found.index.close(), found.log.close())
