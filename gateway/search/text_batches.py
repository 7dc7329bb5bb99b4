"""Embedding texts in batches: those that arrive while Triton is busy are sent together."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from typing import Final

from adapters.embedder.batch_size import NEAR, BatchSize
from adapters.embedder.port import Embedder
from adapters.errors import Rejected, TooSlow, Unavailable

MAX_TEXTS: Final = 32
"""Maximum number of texts in one request, which every text model here accepts."""
SLOW_SECONDS: Final = 10.0
"""The limit for a request of many texts, as each search in it waits for the whole request."""
IN_FLIGHT: Final = 2
"""Maximum number of requests in flight per model; further texts wait for the next one."""

Vector = list[float]
Pending = tuple[str, asyncio.Future[Vector]]


class TextBatches:
    """Embeds single texts, several of them per request under load.

    A single text is sent at once. While `IN_FLIGHT` requests are in flight, further texts are
    collected and sent together, so that they share the fixed cost of a request.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._in_flight: dict[str, int] = defaultdict(int)
        # Not empty only while `IN_FLIGHT` requests are in flight.
        self._waiting: dict[str, deque[Pending]] = defaultdict(deque)
        self._sizes: dict[str, BatchSize] = {}
        self._senders: set[asyncio.Task[None]] = set()

    async def embed(self, model: str, text: str) -> Vector:
        """The text's unit vector; raises as `Embedder.embed_texts`."""
        if self._in_flight[model] == IN_FLIGHT:
            vector: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
            self._waiting[model].append((text, vector))
            return await vector
        self._in_flight[model] += 1
        try:
            vectors = await self._embedder.embed_texts(model, [text])
        finally:
            self._on_request_ended(model)
        own: Vector = vectors[0].tolist()
        return own

    def _on_request_ended(self, model: str) -> None:
        """A request has ended: send the texts that are waiting in its place."""
        waiting = self._waiting[model]
        batch: list[Pending] = []
        most = self._size(model).items
        while waiting and len(batch) < most:
            text, vector = waiting.popleft()
            if not vector.done():
                batch.append((text, vector))
        if not batch:
            self._in_flight[model] -= 1
            return
        sender = asyncio.create_task(self._send(model, batch))
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    def _size(self, model: str) -> BatchSize:
        return self._sizes.setdefault(model, BatchSize(MAX_TEXTS, deadline=SLOW_SECONDS))

    async def _send(self, model: str, batch: list[Pending]) -> None:
        try:
            await self._answer(model, batch)
        finally:
            self._on_request_ended(model)

    async def _answer(self, model: str, batch: list[Pending]) -> None:
        size, started = self._size(model), time.monotonic()
        try:
            vectors = await self._embedder.embed_texts(model, [text for text, _ in batch])
        except Unavailable as error:
            # The next batch must be smaller than this one, which was too slow.
            if isinstance(error, TooSlow) or time.monotonic() - started > NEAR * SLOW_SECONDS:
                size.too_slow(len(batch))
            _fail(batch, error)
        except Rejected as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # A text that is refused must not make the others fail.
            for each in batch:
                await self._answer(model, [each])
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            size.took(len(batch), time.monotonic() - started)
            for (_, future), vector in zip(batch, vectors.tolist(), strict=True):
                if not future.done():
                    future.set_result(vector)


def _fail(batch: list[Pending], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
