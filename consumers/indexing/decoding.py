"""Reads and decodes pictures without taking more memory than was granted."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from adapters.embedder.spec import ModelSpec
from adapters.progress import server_is_away
from consumers.indexing.reading import Limits, read
from consumers.indexing.settings import IndexingSettings
from imaging.decoded_image import DecodedImage
from imaging.sandbox.memory_budget import MemoryBudget, MemoryHold
from imaging.sandbox.pool import Sandbox, workers_of
from schemas.events import ImageAdded

TASK: Final = "consumers.indexing.worker_task:read_and_decode"
LOCAL: Final = "file://"
SLOWEST_DISK: Final = 1_000_000
"""Bytes a second. What is slower is a disk, or a server, that hangs."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """A picture, and how many milliseconds reading and decoding it took."""

    picture: DecodedImage
    read_ms: float
    decode_ms: float


class Decoder:
    """Decodes for one model, in processes of its own."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
        *,
        task: str | None = None,
    ) -> None:
        """`pool` reads what is not on this machine. `task` is called in the processes."""
        self._spec = spec
        self._limits = Limits(settings.max_image_bytes, settings.max_pixels)
        self._pool = pool
        self._long = settings.stuck_seconds / 2
        self._task = task or TASK
        # Files that this process holds until a worker has them; whoever waits for a worker has its
        # file already, so this is a budget of its own.
        self._files = MemoryBudget(settings.decode_memory_bytes // 2)
        self.sandbox = Sandbox(
            workers_of(settings.decode_workers),
            memory_bytes=settings.decode_memory_bytes * 3 // 2,
            seconds=settings.decode_seconds,
        )

    async def decode(self, event: ImageAdded) -> Decoding:
        """The picture that the event speaks of.

        Raises:
            Superseded, Rejected, Unavailable, OSError: as `consumers.indexing.reading.read` and
                `imaging.decoders.Decoders`.
            SlowFile: a local file was not read in `DECODE_SECONDS` and a second for each megabyte.
        """
        if event.uri.startswith(LOCAL):
            # Its bytes never come here.
            return await self._in_worker(event, None, 0.0)
        hold = await self._files.take(event.size_bytes)
        data, read_ms = await self._read(event, hold)
        with hold:
            return await self._in_worker(event, data, read_ms)

    def close(self) -> None:
        """End the processes."""
        self.sandbox.close()

    async def _in_worker(self, event: ImageAdded, data: bytes | None, before: float) -> Decoding:
        reading = 0.0
        if data is None:
            most = min(event.size_bytes, self._limits.max_bytes)
            reading = self.sandbox.seconds + most / SLOWEST_DISK
        # A large file on a slow disk may take longer than a process may seem to do nothing.
        told = asyncio.get_running_loop().call_later(
            self._long, server_is_away, "read pictures", f"{event.uri} takes long", reading
        )
        arguments = (event, data, self._spec, self._limits)
        try:
            picture, read_ms, decode_ms = await self.sandbox.run(
                self._task, *arguments, memory=2 * len(data or b""), reading=reading
            )
        finally:
            told.cancel()
        return Decoding(picture, before + read_ms, decode_ms)

    async def _read(self, event: ImageAdded, hold: MemoryHold) -> tuple[bytes, float]:
        """Its bytes, which the hold is for; that is given back if this fails."""
        started = time.perf_counter()
        reading = asyncio.get_running_loop().run_in_executor(
            self._pool, partial(read, event, max_bytes=self._limits.max_bytes)
        )
        try:
            data = await asyncio.shield(reading)
        except asyncio.CancelledError:
            # A thread cannot be stopped: what it reads is in memory until it has read it.
            reading.add_done_callback(lambda _: hold.give_back())
            raise
        except BaseException:
            hold.give_back()
            raise
        return data, (time.perf_counter() - started) * 1e3
