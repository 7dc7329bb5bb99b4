"""Texts that are asked for while Triton is busy go to it together."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Final

from adapters.errors import Rejected
from adapters.ports import Embedder

MOST: Final = 32
"""Texts in one request; every text model here takes so many."""
IN_FLIGHT: Final = 2
"""Requests under way for a model; what is asked meanwhile waits, and goes with the next."""

Vector = list[float]


class TextBatches:
    """Embeds single texts in as few requests as their arrival allows.

    Who asks alone waits for nobody. Under load a request's fixed cost, here and in Triton, is
    shared by all that came while the last one was answered.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._waiting: dict[str, deque[tuple[str, asyncio.Future[Vector]]]] = defaultdict(deque)
        self._senders: dict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def embed(self, model: str, text: str) -> Vector:
        """The text's unit vector; raises as `Embedder.embed_texts`."""
        vector: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        self._waiting[model].append((text, vector))
        senders = self._senders[model]
        if len(senders) < IN_FLIGHT:
            task = asyncio.create_task(self._send(model))
            senders.add(task)
            task.add_done_callback(senders.discard)
        return await vector

    async def _send(self, model: str) -> None:
        waiting = self._waiting[model]
        while waiting:
            count = min(len(waiting), MOST)
            batch = [waiting.popleft() for _ in range(count)]
            await self._answer(model, [each for each in batch if not each[1].done()])

    async def _answer(self, model: str, batch: list[tuple[str, asyncio.Future[Vector]]]) -> None:
        if not batch:
            return
        try:
            vectors = await self._embedder.embed_texts(model, [text for text, _ in batch])
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
            for (_, future), vector in zip(batch, vectors.tolist(), strict=True):
                if not future.done():
                    future.set_result(vector)


def _fail(batch: list[tuple[str, asyncio.Future[Vector]]], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
