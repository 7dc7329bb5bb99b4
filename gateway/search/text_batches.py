"""Texts that are asked for while Triton is busy go to it together."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from typing import Final

from adapters.embedder.batch_size import NEAR, BatchSize
from adapters.embedder.port import Embedder
from adapters.errors import Rejected, TooSlow, Unavailable

MOST: Final = 32
"""Texts in one request; every text model here takes so many."""
SLOW_SECONDS: Final = 10.0
"""A request of many texts should take less; who searches waits for all of it."""
IN_FLIGHT: Final = 2
"""Requests under way for a model; what is asked meanwhile waits, and goes with the next."""

Vector = list[float]
Asked = tuple[str, asyncio.Future[Vector]]


class TextBatches:
    """Embeds single texts in as few requests as their arrival allows.

    Who asks alone waits for nobody. Under load a request's fixed cost, here and in Triton, is
    shared by all that came while the last one was answered.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._under_way: dict[str, int] = defaultdict(int)
        # Not empty only while as many requests are under way as may be.
        self._waiting: dict[str, deque[Asked]] = defaultdict(deque)
        self._sizes: dict[str, BatchSize] = {}
        self._senders: set[asyncio.Task[None]] = set()

    async def embed(self, model: str, text: str) -> Vector:
        """The text's unit vector; raises as `Embedder.embed_texts`."""
        if self._under_way[model] == IN_FLIGHT:
            vector: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
            self._waiting[model].append((text, vector))
            return await vector
        self._under_way[model] += 1
        try:
            vectors = await self._embedder.embed_texts(model, [text])
        finally:
            self._ended(model)
        own: Vector = vectors[0].tolist()
        return own

    def _ended(self, model: str) -> None:
        """A request is over: the texts that came meanwhile take its place."""
        waiting = self._waiting[model]
        batch: list[Asked] = []
        most = self._size(model).items
        while waiting and len(batch) < most:
            text, vector = waiting.popleft()
            if not vector.done():
                batch.append((text, vector))
        if not batch:
            self._under_way[model] -= 1
            return
        sender = asyncio.create_task(self._send(model, batch))
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    def _size(self, model: str) -> BatchSize:
        return self._sizes.setdefault(model, BatchSize(MOST, deadline=SLOW_SECONDS))

    async def _send(self, model: str, batch: list[Asked]) -> None:
        try:
            await self._answer(model, batch)
        finally:
            self._ended(model)

    async def _answer(self, model: str, batch: list[Asked]) -> None:
        size, started = self._size(model), time.monotonic()
        try:
            vectors = await self._embedder.embed_texts(model, [text for text, _ in batch])
        except Unavailable as error:
            # Those who ask again must not be put into as large a batch.
            if isinstance(error, TooSlow) or time.monotonic() - started > NEAR * SLOW_SECONDS:
                size.too_slow(len(batch))
            _fail(batch, error)
        except Rejected as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # One text that is refused must not take the others with it.
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


def _fail(batch: list[Asked], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
