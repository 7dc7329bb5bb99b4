"""Turn images into vectors: read and decode many concurrently, and embed them in batches."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from adapters.embedder.arrays import Vectors
from adapters.embedder.batch_size import NEAR, BatchSize
from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, SlowFile, TooSlow, Unavailable
from adapters.index.facts import ImageFacts, values
from adapters.index.port import KnownVector
from adapters.progress import server_is_away
from consumers.indexing.batch import (
    AbsentImage,
    Addition,
    ImageToIndex,
    IndexingCounters,
    PreparedBatch,
    image_record,
    reuse_vector,
)
from consumers.indexing.decoding import Decoder, DecodingResult
from consumers.indexing.failures import Poison, RetryPolicy
from consumers.indexing.reading import Superseded
from consumers.indexing.settings import IndexingSettings
from consumers.indexing.slots import Lease, Slot, Slots
from imaging.decoded_image import DecodedImage
from schemas.events import StageTimings

RECENT_VECTORS = 4096
"""Vectors cached by content, for copies that arrive before the first one can be looked up."""


@dataclass(slots=True)
class _PendingEmbedding:
    wanted: ImageToIndex
    done: DecodingResult
    slot: Slot


class Inference:
    """Infers the vectors of images that have none yet.

    A decoded image holds a slot until its vector is inferred; `consumers.indexing.slots` explains
    why no slot can be lost.
    """

    def __init__(
        self,
        embedder: Embedder,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
        counters: IndexingCounters,
    ) -> None:
        self._embedder = embedder
        self._spec = spec
        self._settings = settings
        self._counters = counters
        self._retry = RetryPolicy(
            settings.retry_initial, settings.retry_maximum, settings.max_attempts
        )
        self._calls = Slots(settings.embed_in_flight)
        # Decoded images waiting for Triton; room for one more batch than can be in flight.
        self._pixels = Slots(settings.embed_batch * (settings.embed_in_flight + 1))
        self._size = BatchSize(settings.embed_batch, deadline=settings.triton_timeout)
        self._decoder = Decoder(spec, settings, pool)
        self._recent: OrderedDict[str, KnownVector] = OrderedDict()

    @property
    def slots_taken(self) -> int:
        """Decoded images and calls in flight; 0 while nothing is inferred."""
        return self._pixels.taken + self._calls.taken

    def close(self) -> None:
        """Stop the decoding processes."""
        self._decoder.close()

    def recent(self, sha256: str) -> KnownVector | None:
        """The vector of this content, if it was inferred recently."""
        known = self._recent.get(sha256)
        return None if known is None else replace(known, vector=list(known.vector))

    async def infer(
        self, wanted: Sequence[ImageToIndex], prepared: PreparedBatch
    ) -> list[AbsentImage]:
        """Add the outcome of each image to `prepared`; absent images are returned instead.

        Of several records with one content, the first is inferred; the others reuse its vector.
        """
        first: dict[str, ImageToIndex] = {}
        copies: list[ImageToIndex] = []
        for each in wanted:
            if first.setdefault(each.event.sha256, each) is not each:
                copies.append(each)
        absent: list[AbsentImage] = []
        decoded: asyncio.Queue[_PendingEmbedding | None] = asyncio.Queue()
        with self._pixels.lease() as pixels, self._calls.lease() as calls:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._decode_all(list(first.values()), pixels, decoded, prepared, absent)
                )
                group.create_task(self._embed_all(decoded, calls, prepared))
        left: list[ImageToIndex] = []
        for each in copies:
            if (vector := self.recent(each.event.sha256)) is not None:
                prepared.additions.append(reuse_vector(each, vector))
            else:
                # The first one failed or was absent; the same content at this path may be readable.
                left.append(each)
        if left:
            absent += await self.infer(left, prepared)
        return absent

    async def _decode_all(
        self,
        wanted: Sequence[ImageToIndex],
        pixels: Lease,
        decoded: asyncio.Queue[_PendingEmbedding | None],
        prepared: PreparedBatch,
        absent: list[AbsentImage],
    ) -> None:
        async def decode_one(each: ImageToIndex, slot: Slot) -> None:
            try:
                done = await self._decode_with_retries(each)
            except Superseded as error:
                absent.append(AbsentImage(each, str(error)))
            except SlowFile as error:
                server_is_away("read pictures", f"{each.event.uri}: {error}")
                absent.append(AbsentImage(each, str(error)))
            except Unavailable as error:
                absent.append(AbsentImage(each, str(error), storage_is_away=True))
            except (Rejected, OSError) as error:
                attempts = self._settings.max_attempts if isinstance(error, OSError) else 1
                kind = type(error).__name__
                self._counters.refused += 1
                prepared.poison.append(
                    Poison(each.record, each.event.image_id, kind, str(error), attempts)
                )
            else:
                self._counters.decoded += 1
                corrected = self._correct_facts(each, done)
                if corrected is None:
                    decoded.put_nowait(_PendingEmbedding(each, done, slot))
                    return
                prepared.additions.append(corrected)
            slot.give_back()

        async with asyncio.TaskGroup() as group:
            for each in wanted:
                group.create_task(decode_one(each, await pixels.take()))
        decoded.put_nowait(None)

    def _correct_facts(self, wanted: ImageToIndex, done: DecodingResult) -> Addition | None:
        """A known image with its facts read again; None if it has to be embedded as well."""
        known, image = wanted.known, done.image
        if known is None or known.facts_version < image.pixels_since:
            return None
        # Different dimensions mean that the earlier version embedded it in another orientation.
        if (known.width, known.height) != (image.width, image.height):
            return None
        corrected = _known_vector(image, known.vector)
        self._remember(wanted.event.sha256, corrected)
        timings = StageTimings(read=done.read_ms, decode=done.decode_ms)
        return reuse_vector(wanted, corrected, timings)

    async def _decode_with_retries(self, wanted: ImageToIndex) -> DecodingResult:
        # An unreadable file may be locked for a moment, or be on an unreliable disk.
        settings = self._settings
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(OSError),
            stop=stop_after_attempt(settings.max_attempts),
            wait=wait_random_exponential(settings.retry_initial, settings.retry_maximum),
            reraise=True,
        ):
            with attempt:
                return await self._decoder.decode(wanted.event)
        raise AssertionError("unreachable: the last attempt raises")

    async def _embed_all(
        self,
        decoded: asyncio.Queue[_PendingEmbedding | None],
        calls: Lease,
        prepared: PreparedBatch,
    ) -> None:
        async def embed_chunk(chunk: Sequence[_PendingEmbedding], call: Slot) -> None:
            await self._embed(chunk, prepared)
            call.give_back()
            for each in chunk:
                each.slot.give_back()

        ended = False
        async with asyncio.TaskGroup() as group:
            while not ended:
                chunk: list[_PendingEmbedding] = []
                while len(chunk) < self._settings.embed_batch:
                    item = await decoded.get()
                    if item is None:
                        ended = True
                        break
                    chunk.append(item)
                if chunk:
                    group.create_task(embed_chunk(chunk, await calls.take()))

    async def _embed(self, chunk: Sequence[_PendingEmbedding], prepared: PreparedBatch) -> None:
        """Embed the chunk in requests of a size that Triton answers in time."""
        done = 0

        async def next_part() -> tuple[Sequence[_PendingEmbedding], Vectors | Rejected]:
            # Cut again for each attempt, so that a part that was too large is retried smaller.
            part = chunk[done : done + self._size.items]
            return part, await self._infer(part)

        while done < len(chunk):
            started = time.perf_counter()
            part, vectors = await self._retry.until_available(next_part, "embed pictures")
            done += len(part)
            if isinstance(vectors, Rejected):
                await self._refuse(part, vectors, prepared)
                continue
            self._counters.vectors_inferred += len(part)
            embed_ms = (time.perf_counter() - started) * 1e3 / len(part)
            for item, vector in zip(part, vectors, strict=True):
                prepared.additions.append(self._addition(item, vector.tolist(), embed_ms))

    async def _infer(self, part: Sequence[_PendingEmbedding]) -> Vectors | Rejected:
        pixels = np.stack([item.done.image.pixels for item in part])
        started = time.monotonic()
        try:
            vectors = await self._embedder.embed_images(self._spec.name, pixels)
        except Rejected as error:
            return error
        except Unavailable as error:
            waited = time.monotonic() - started
            if isinstance(error, TooSlow) or waited > NEAR * self._settings.triton_timeout:
                self._size.too_slow(len(part))
            raise
        self._size.took(len(part), time.monotonic() - started)
        return vectors

    async def _refuse(
        self, part: Sequence[_PendingEmbedding], error: Rejected, prepared: PreparedBatch
    ) -> None:
        """Dead-letter the image if it was sent alone; else embed each image of the part alone."""
        if len(part) == 1:
            (item,) = part
            kind = type(error).__name__
            prepared.poison.append(
                Poison(item.wanted.record, item.wanted.event.image_id, kind, str(error))
            )
            return
        for item in part:
            await self._embed([item], prepared)

    def _addition(
        self, item: _PendingEmbedding, vector: Sequence[float], embed_ms: float
    ) -> Addition:
        record, event = item.wanted.record, item.wanted.event
        known = _known_vector(item.done.image, vector)
        self._remember(event.sha256, known)
        timings = StageTimings(read=item.done.read_ms, decode=item.done.decode_ms, embed=embed_ms)
        return Addition(record, event, image_record(event, known), False, timings)

    def _remember(self, sha256: str, known: KnownVector) -> None:
        # A list of Python floats would take eight times the memory.
        self._recent[sha256] = replace(known, vector=array("f", known.vector))
        if len(self._recent) > RECENT_VECTORS:
            self._recent.popitem(last=False)


def _known_vector(image: DecodedImage, vector: Sequence[float]) -> KnownVector:
    return KnownVector(vector=vector, **values(ImageFacts, image))
