"""Questions to a running process: is it ready, does it still work?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np

from adapters.errors import AdapterError
from adapters.kafka_log import KafkaEventLog
from adapters.triton_clip import TritonEmbedder

READY_TIMEOUT_SECONDS = 2.0
INFERENCE_TIMEOUT_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0
"""A process of ours whose ready file is older than this is no longer well."""

Ready = Callable[[], Awaitable[bool]]


REFUSALS = (401, 403, 429)


def answers(url: str, *, refusal_will_do: bool = False) -> Ready:
    """Ready when a GET of this URL succeeds, or is refused, where that will do."""

    async def ready() -> bool:
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_SECONDS, trust_env=False) as client:
                response = await client.get(url)
                refused = refusal_will_do and response.status_code in REFUSALS
                return response.is_success or refused
        except httpx.HTTPError:
            return False

    return ready


def kafka_answers(bootstrap_servers: str) -> Ready:
    """Ready when a client gets the cluster's metadata."""

    async def ready() -> bool:
        async with KafkaEventLog(bootstrap_servers) as log:
            return await log.is_ready()

    return ready


def heartbeat(file: Path) -> Ready:
    """Ready when the process touched its ready file not long ago."""

    async def ready() -> bool:
        try:
            return time.time() - file.stat().st_mtime < HEARTBEAT_SECONDS
        except FileNotFoundError:
            return False

    return ready


def infers(url: str, model_name: str) -> Ready:
    """Works when both encoders embed something.

    Triton goes on calling a model ready whose Python process was killed, so only this tells.
    """

    async def works() -> bool:
        embedder = TritonEmbedder(url, timeout=INFERENCE_TIMEOUT_SECONDS, concurrency=2)
        try:
            spec = await embedder.spec(model_name)
            blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
            await asyncio.gather(
                embedder.embed_texts(model_name, ["alive?"]),
                embedder.embed_images(model_name, blank),
            )
        except AdapterError:
            return False
        finally:
            await embedder.close()
        return True

    return works


async def never_asked() -> bool:
    """For one-shot processes, which are ready when they have ended."""
    return False
