"""What the servers and the gateway say, asked all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cli.servers import server_settings, watcher_status
from stack import questions
from stack.settings import StackSettings

if TYPE_CHECKING:
    from adapters.bootstrap import Connections

T = TypeVar("T")

GATEWAY_SECONDS: Final = 5.0
"""Time limit for the gateway's health and state."""
ADVICE_SECONDS: Final = 30.0
"""Time limit for reading the ratings and, if they are low, trying the other models."""


async def ask(current: StackSettings) -> dict[str, Any]:
    """What the servers and the gateway say, all asked at once."""
    servers, url = current.server_settings(), current.gateway_url

    async def gateway(path: str, seconds: float) -> dict[str, Any] | None:
        """The gateway's answer, which may be some seconds old; None if it gives none."""
        try:
            code, body = await questions.get_json(f"{url}{path}", seconds, questions.credentials())
        except questions.NoAnswer:
            return None
        return body if code == 200 and isinstance(body, dict) else None

    state = asyncio.ensure_future(gateway("/api/v1/state", GATEWAY_SECONDS))
    advice = asyncio.ensure_future(gateway("/api/v1/advice", GATEWAY_SECONDS))
    kafka, weaviate, triton, health = await asyncio.gather(
        questions.kafka_answers(servers.kafka_bootstrap_servers),
        questions.http_answers(f"{servers.weaviate_url}/v1/.well-known/ready"),
        questions.http_answers(f"{servers.triton_url}/v2/health/ready"),
        _health(url),
    )
    lag, said = await asyncio.gather(_lag(health, state), _advice(health, advice))
    return {
        "servers": {"kafka": kafka, "weaviate": weaviate, "triton": triton},
        "gateway": health,
        "lag": lag,
        "watcher": watcher_status(current),
        "advice": said,
    }


async def _health(url: str) -> dict[str, Any]:
    try:
        code, body = await questions.get_json(f"{url}/api/v1/healthcheck", GATEWAY_SECONDS)
    except questions.NoAnswer as error:
        return {"url": url, "status": "unreachable", "detail": str(error)}
    if not isinstance(body, dict):
        return {"url": url, "status": "unreachable", "detail": "its answer is not JSON"}
    return {"url": url, **body, "status": "ok" if code < 400 else "unavailable"}


async def _lag(health: dict[str, Any], state: Awaitable[dict[str, Any] | None]) -> int | None:
    """Records that the active collection's group has not read yet; None if not known."""
    said = await state
    if "collection" not in health:
        return None
    if said is not None and isinstance(said.get("waiting"), int):
        return int(said["waiting"])

    async def read(servers: Connections) -> int | None:
        from schemas.topics import IMAGES

        active = await servers.index.active()
        if active is None:
            return None
        return (await servers.groups.progress(IMAGES, active.group)).lag

    return await _from_servers(read, GATEWAY_SECONDS)


async def _advice(
    health: dict[str, Any], advice: Awaitable[dict[str, Any] | None]
) -> dict[str, Any] | None:
    """The advice from the ratings of the active model; None if not known."""
    said = await advice
    if health["status"] != "ok":
        return None
    if said is not None:
        return said

    async def read(servers: Connections) -> dict[str, Any]:
        from models.advice import advise
        from models.settings import AdviceSettings

        found = await advise(servers.log, servers.embedder, servers.index, AdviceSettings())
        return found.as_json()

    return await _from_servers(read, ADVICE_SECONDS)


async def _from_servers(read: Callable[[Connections], Awaitable[T]], seconds: float) -> T | None:
    """What `read` gives; None if a server does not answer in time.

    For what the gateway does not say, for instance because it requires a key that is not here.
    """
    from adapters.bootstrap import connections
    from adapters.errors import AdapterError

    try:
        async with asyncio.timeout(seconds), connections(server_settings()) as servers:
            return await read(servers)
    except (AdapterError, TimeoutError):
        return None
