"""Embeddings of texts that were asked before, so that a repeated query costs no inference."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

Vector = list[float]
MODELS: Final = 4
"""So many models are remembered: the active one, and those before it."""


class TextCache:
    """The `size` texts used last, for each model; a text that is being embedded is waited for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._models: OrderedDict[str, OrderedDict[str, array[float]]] = OrderedDict()
        self._under_way: dict[tuple[str, str], asyncio.Task[Vector]] = {}

    async def get(self, model: str, text: str, embed: Callable[[], Awaitable[Vector]]) -> Vector:
        """The text's vector; raises what `embed` raises, and remembers no error."""
        known = self._models.get(model)
        if known is not None and text in known:
            known.move_to_end(text)
            return list(known[text])
        task = self._under_way.get((model, text))
        if task is None:
            task = asyncio.create_task(self._embed(model, text, embed))
            self._under_way[model, text] = task
            task.add_done_callback(lambda _: self._under_way.pop((model, text), None))
        # A caller that goes away must not take the vector from the others.
        return await asyncio.shield(task)

    async def _embed(self, model: str, text: str, embed: Callable[[], Awaitable[Vector]]) -> Vector:
        vector = await embed()
        texts = self._models.setdefault(model, OrderedDict())
        self._models.move_to_end(model)
        # As Python's own numbers, they would take eight times as much.
        texts[text] = array("f", vector)
        while len(texts) > self._size:
            texts.popitem(last=False)
        while len(self._models) > MODELS:
            self._models.popitem(last=False)
        return vector
