"""The automatic cut-off: where matches end and the rest of the collection begins.

Cosines differ between models and between queries, so no fixed number fits all of them. The bound
is computed for each query:

    bound = max(noise, m + (s - m) / 2)

with s the best score, m the median score of a random sample of the collection (the score of an
image that has nothing to do with the query), and `noise` the cosine below which the model's own
specification calls a match noise. A match thus stands out of the collection at least half as far
as the best one does (the half-maximum rule of peak detection, applied to scores). For queries of
several terms, whose scores are lower the more directions they mix, `noise` is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adapters.index.port import Collection, ImageIndex

SAMPLE: Final = 256
SAMPLE_SECONDS: Final = 60.0
"""How long a sample is used."""


def cut_off_score(
    best: float, background: Sequence[float] | NDArray[np.float32], noise: float
) -> float:
    """The minimum score of a match; `background` are the scores of random images."""
    if len(background) == 0:
        return noise
    median = float(np.median(np.asarray(background)))
    return max(noise, median + (best - median) / 2)


class BackgroundSample:
    """A random sample of each collection's vectors, renewed once a minute."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._samples: dict[str, tuple[float, NDArray[np.float32]]] = {}
        self._reading = asyncio.Lock()

    async def scores(self, collection: Collection, vector: Sequence[float]) -> NDArray[np.float32]:
        """The sample's cosines with a unit vector, float32 [n], n at most `SAMPLE`.

        Raises:
            Unavailable: the index does not answer.
        """
        async with self._reading:
            known = self._samples.get(collection.name)
            if known is None or time.monotonic() - known[0] > SAMPLE_SECONDS:
                # Object ids are hashes of names, so the first ones are a random sample.
                stored = await self._index.scroll(collection, None, SAMPLE)
                vectors = np.array([each.vector for each in stored], dtype=np.float32)
                known = (time.monotonic(), vectors.reshape(len(stored), collection.dimension))
                self._samples[collection.name] = known
        scores: NDArray[np.float32] = known[1] @ np.asarray(vector, dtype=np.float32)
        return scores
