"""Probes of a running process: is it ready, and does it still work?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from adapters.bootstrap import connect_embedder, connect_log
from adapters.embedder.port import Embedder
from adapters.errors import AdapterError, TooSlow
from adapters.settings import ServerSettings

READY_TIMEOUT_SECONDS = 2.0
INFERENCE_TIMEOUT_SECONDS = 10.0
HUNG_SECONDS = 900.0
"""If Triton's models complete nothing for this long, it is assumed not to recover by itself."""
HEARTBEAT_SECONDS = 30.0
"""If the ready file of one of our processes is older than this, the process is not healthy."""

Probe = Callable[[], Awaitable[bool]]


REFUSALS = (401, 403, 429)


def http_probe(url: str, *, accept_refusal: bool = False) -> Probe:
    """Ready when a GET of this URL succeeds or, with `accept_refusal`, is refused."""

    async def ready() -> bool:
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_SECONDS, trust_env=False) as client:
                response = await client.get(url)
                refused = accept_refusal and response.status_code in REFUSALS
                return response.is_success or refused
        except httpx.HTTPError:
            return False

    return ready


def kafka_probe(settings: ServerSettings) -> Probe:
    """Ready when a client gets the cluster's metadata."""

    async def ready() -> bool:
        async with connect_log(settings) as log:
            return await log.is_ready()

    return ready


def heartbeat_probe(file: Path) -> Probe:
    """Ready when the process touched its ready file within `HEARTBEAT_SECONDS`.

    The age is measured on the monotonic clock since the last observed change: the file's own
    modification time depends on the system clock, which may be set.
    """
    seen: int | None = None
    changed = 0.0

    async def ready() -> bool:
        nonlocal seen, changed
        try:
            modified = file.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if modified != seen:
            seen, changed = modified, now
        return now - changed < HEARTBEAT_SECONDS

    return ready


class TritonProbe:
    """Healthy if both encoders embed something, or are busy.

    Triton still reports a model as ready when its Python process was killed, so only an inference
    is a reliable test: in that case it fails at once. An inference that times out on a live server
    is queued behind others: Triton is busy, unless no model completes anything for `HUNG_SECONDS`.
    """

    def __init__(self, settings: ServerSettings, model_name: Callable[[], str]) -> None:
        """`model_name` is called for each probe, as a switch may have changed the model."""
        self._url = settings.triton_url
        limits = {"triton_timeout": INFERENCE_TIMEOUT_SECONDS, "triton_concurrency": 2}
        self._settings = settings.model_copy(update=limits)
        self._model_name = model_name
        self._count_completed: int | None = None
        self._progressed = time.monotonic()

    async def __call__(self) -> bool:
        """Whether it is healthy now."""
        embedder = connect_embedder(self._settings)
        try:
            await _embed_something(embedder, self._model_name())
        except TooSlow:
            return await self._makes_progress()
        except AdapterError:
            return False
        finally:
            await embedder.close()
        self._progressed = time.monotonic()
        return True

    async def _makes_progress(self) -> bool:
        completed = await _count_completed(self._url)
        now = time.monotonic()
        if completed is not None and completed != self._count_completed:
            self._count_completed, self._progressed = completed, now
        return now - self._progressed < HUNG_SECONDS


async def _embed_something(embedder: Embedder, model_name: str) -> None:
    import numpy as np  # Here, because commands that change models import this module, too.

    spec = await embedder.spec(model_name)
    blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
    work = [
        asyncio.ensure_future(embedder.embed_texts(model_name, ["alive?"])),
        asyncio.ensure_future(embedder.embed_images(model_name, blank)),
    ]
    try:
        # A failure takes precedence over a timeout: one model may be dead while another works.
        results = await asyncio.gather(*work, return_exceptions=True)
    finally:
        for each in work:
            each.cancel()
    failed = [each for each in results if isinstance(each, BaseException)]
    for error in sorted(failed, key=lambda each: isinstance(each, TooSlow)):
        raise error


async def _count_completed(url: str) -> int | None:
    """Number of executions that all models have completed; None if Triton does not report it."""
    try:
        async with httpx.AsyncClient(timeout=READY_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.get(f"{url}/v2/models/stats")
            answer.raise_for_status()
            return sum(int(model["execution_count"]) for model in answer.json()["model_stats"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


async def never_ready() -> bool:
    """For one-shot processes, which are ready when they have exited; never called for them."""
    return False
