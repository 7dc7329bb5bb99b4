"""Reads and decodes pictures without taking more memory than was granted.

What fits is decoded in threads. What would take more than all that is granted is left to a process
of its own, one picture at a time, so that no picture, however large, breaks the bound on the
indexer or takes it along when the system runs out of memory.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from adapters.decode_memory import memory_needed
from adapters.helpers import HelperDied, Helpers
from adapters.model_spec import ModelSpec
from adapters.picture import Picture, decode
from adapters.settings import IndexingSettings
from consumers.budget import MemoryBudget, return_memory_promptly
from consumers.reading import read
from schemas.events import ImageAdded


@dataclass(frozen=True, slots=True)
class Decoding:
    """A picture, and how many milliseconds reading and decoding it took."""

    picture: Picture
    read_ms: float
    decode_ms: float


class TooBig(Exception):
    """It takes more memory than this process grants to all pictures."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused: files of more bytes, pictures of more pixels."""

    max_bytes: int
    max_pixels: int


class Decoder:
    """Decodes for one model."""

    def __init__(
        self, spec: ModelSpec, settings: IndexingSettings, pool: ThreadPoolExecutor
    ) -> None:
        self._spec = spec
        self._limits = Limits(settings.max_image_bytes, settings.max_pixels)
        self._pool = pool
        self._granted = settings.decode_memory_bytes
        # Files are held until their pictures are decoded, so theirs is a budget of its own: whoever
        # waits for the second already has the first.
        self._file_budget = self._granted // 2
        self._files = MemoryBudget(self._file_budget)
        self._pictures = MemoryBudget(self._granted)
        self._helper = Helpers(1)

    async def decode(self, event: ImageAdded) -> Decoding:
        """The picture that the event speaks of.

        Raises:
            Superseded, Rejected, Unavailable, OSError: as `consumers.reading.read` and
                `adapters.picture.decode`.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._here, event)
        except TooBig:
            pass
        try:
            return await self._helper.run(
                partial(_alone, spec=self._spec, limits=self._limits), event
            )
        except HelperDied as error:
            raise OSError(f"the process that decoded it ended: {error}") from error

    def close(self) -> None:
        """End the helper process, if it runs."""
        self._helper.close()

    def _here(self, event: ImageAdded) -> Decoding:
        limits = self._limits
        if self._file_budget < event.size_bytes <= limits.max_bytes:
            raise TooBig
        started = time.perf_counter()
        with self._files.hold(event.size_bytes):
            data = read(event, max_bytes=limits.max_bytes)
            between = time.perf_counter()
            needed = memory_needed(data, self._spec)
            if needed > self._granted:
                raise TooBig
            with self._pictures.hold(needed):
                picture = decode(data, self._spec, max_pixels=limits.max_pixels)
        ended = time.perf_counter()
        return Decoding(picture, (between - started) * 1e3, (ended - between) * 1e3)


def _alone(event: ImageAdded, spec: ModelSpec, limits: Limits) -> Decoding:
    """Read and decode, in a process that does nothing else."""
    return_memory_promptly()
    started = time.perf_counter()
    data = read(event, max_bytes=limits.max_bytes)
    between = time.perf_counter()
    picture = decode(data, spec, max_pixels=limits.max_pixels)
    ended = time.perf_counter()
    return Decoding(picture, (between - started) * 1e3, (ended - between) * 1e3)
