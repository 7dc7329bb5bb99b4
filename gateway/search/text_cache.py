"""A cache of the vectors of texts, so that a repeated query needs no inference."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

Vector = list[float]
MODELS: Final = 4
"""How many models have vectors in the cache: the active one, and previous ones."""


class TextCache:
    """The vectors of the `size` last used texts of each model, each embedded by one task."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._models: OrderedDict[str, OrderedDict[str, array[float]]] = OrderedDict()
        self._in_flight: dict[tuple[str, str], asyncio.Task[Vector]] = {}

    async def get(self, model: str, text: str, embed: Callable[[], Awaitable[Vector]]) -> Vector:
        """The text's vector; raises what `embed` raises. Errors are not cached."""
        known = self._models.get(model)
        if known is not None and text in known:
            known.move_to_end(text)
            return list(known[text])
        task = self._in_flight.get((model, text))
        if task is None:
            task = asyncio.create_task(self._embed(model, text, embed))
            self._in_flight[model, text] = task
            task.add_done_callback(lambda _: self._in_flight.pop((model, text), None))
        # A caller that is cancelled must not cancel the task for the others.
        return await asyncio.shield(task)

    async def _embed(self, model: str, text: str, embed: Callable[[], Awaitable[Vector]]) -> Vector:
        vector = await embed()
        texts = self._models.setdefault(model, OrderedDict())
        self._models.move_to_end(model)
        # Python's own floats would take eight times as much memory.
        texts[text] = array("f", vector)
        while len(texts) > self._size:
            texts.popitem(last=False)
        while len(self._models) > MODELS:
            self._models.popitem(last=False)
        return vector
