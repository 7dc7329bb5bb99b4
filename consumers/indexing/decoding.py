"""Read and decode images within the configured memory."""

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
from imaging.sandbox.pool import Sandbox, worker_count
from schemas.events import ImageAdded

TASK: Final = "consumers.indexing.worker_task:read_and_decode"
LOCAL_SCHEME: Final = "file://"
MIN_DISK_SPEED: Final = 1_000_000
"""Bytes per second. A slower read counts as that of a hanging disk or server."""


@dataclass(frozen=True, slots=True)
class DecodingResult:
    """A decoded image, and the milliseconds that reading and decoding took."""

    image: DecodedImage
    read_ms: float
    decode_ms: float


class Decoder:
    """Decodes images for one model, in its own worker processes."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
        *,
        task: str | None = None,
    ) -> None:
        """`pool` reads files that are not local. `task` is called in the worker processes."""
        self._spec = spec
        self._limits = Limits(settings.max_image_bytes, settings.max_pixels)
        self._pool = pool
        self._long = settings.stuck_seconds / 2
        self._task = task or TASK
        # For files that this process holds until a worker takes them. A separate budget: an image
        # that waits for a worker already holds its file.
        self._files = MemoryBudget(settings.decode_memory_bytes // 2)
        self.sandbox = Sandbox(
            worker_count(settings.decode_workers),
            memory_bytes=settings.decode_memory_bytes * 3 // 2,
            seconds=settings.decode_seconds,
        )

    async def decode(self, event: ImageAdded) -> DecodingResult:
        """The image that the event describes.

        Raises:
            Superseded, Rejected, Unavailable, OSError: as `consumers.indexing.reading.read` and
                `imaging.decoders.Decoders`.
            SlowFile: reading a local file took more than `DECODE_SECONDS` plus one second per
                megabyte.
        """
        if event.uri.startswith(LOCAL_SCHEME):
            # The worker reads it; its bytes never pass through this process.
            return await self._in_worker(event, None, 0.0)
        hold = await self._files.take(event.size_bytes)
        data, read_ms = await self._read(event, hold)
        with hold:
            return await self._in_worker(event, data, read_ms)

    def close(self) -> None:
        """Stop the worker processes."""
        self.sandbox.close()

    async def _in_worker(
        self, event: ImageAdded, data: bytes | None, before: float
    ) -> DecodingResult:
        reading = 0.0
        if data is None:
            size = min(event.size_bytes, self._limits.max_bytes)
            reading = self.sandbox.seconds + size / MIN_DISK_SPEED
        # A large file on a slow disk may take longer than the watchdog's limit without progress.
        report = asyncio.get_running_loop().call_later(
            self._long, server_is_away, "read pictures", f"{event.uri} takes long", reading
        )
        arguments = (event, data, self._spec, self._limits)
        try:
            image, read_ms, decode_ms = await self.sandbox.run(
                self._task, *arguments, memory=2 * len(data or b""), reading=reading
            )
        finally:
            report.cancel()
        return DecodingResult(image, before + read_ms, decode_ms)

    async def _read(self, event: ImageAdded, hold: MemoryHold) -> tuple[bytes, float]:
        """The file's bytes and the milliseconds to read them; gives `hold` back on failure."""
        started = time.perf_counter()
        reading = asyncio.get_running_loop().run_in_executor(
            self._pool, partial(read, event, max_bytes=self._limits.max_bytes)
        )
        try:
            data = await asyncio.shield(reading)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: its buffer stays in memory until the read returns.
            reading.add_done_callback(lambda _: hold.give_back())
            raise
        except BaseException:
            hold.give_back()
            raise
        return data, (time.perf_counter() - started) * 1e3
