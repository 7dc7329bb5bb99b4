"""From records to what must be written: dedupe, reuse known vectors, read, decode, embed."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from adapters.errors import Rejected
from adapters.event_log import LogRecord
from adapters.model_spec import ModelSpec
from adapters.picture import Picture
from adapters.ports import Collection, Embedder, ImageIndex, ImageRecord, KnownVector
from adapters.settings import IndexingSettings
from consumers.decoding import Decoder, Decoding
from consumers.failures import Poison, RetryPolicy
from consumers.reading import Superseded
from schemas.codec import InvalidEvent, decode_image_change, decode_key
from schemas.events import ImageAdded, ImageRemoved, StageTimings

RECENT_VECTORS = 4096
"""Vectors remembered by content, for copies that arrive before the first one can be looked up."""


@dataclass(frozen=True, slots=True)
class Addition:
    """A picture ready to be written."""

    record: LogRecord
    event: ImageAdded
    image: ImageRecord
    vector_reused: bool
    timings: StageTimings


@dataclass(slots=True)
class Prepared:
    """All that one batch asks to be done; `records` is what it was made from, in order."""

    records: Sequence[LogRecord]
    additions: list[Addition] = field(default_factory=list)
    removals: list[tuple[LogRecord, ImageRemoved]] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    superseded: int = 0


@dataclass(slots=True)
class Counters:
    """What was done since the process started."""

    received: int = 0
    indexed: int = 0
    removed: int = 0
    dead_lettered: int = 0
    superseded: int = 0
    vectors_reused: int = 0
    vectors_inferred: int = 0


@dataclass(slots=True)
class _Decoded:
    record: LogRecord
    event: ImageAdded
    done: Decoding


class Preparer:
    """Prepares batches for one collection. Writes nothing."""

    def __init__(
        self,
        embedder: Embedder,
        index: ImageIndex,
        collection: Collection,
        spec: ModelSpec,
        settings: IndexingSettings,
        pool: ThreadPoolExecutor,
        counters: Counters,
    ) -> None:
        self._embedder = embedder
        self._index = index
        self._collection = collection
        self._spec = spec
        self._settings = settings
        self._counters = counters
        self._retry = RetryPolicy(
            settings.retry_initial, settings.retry_maximum, settings.max_attempts
        )
        self._in_flight = asyncio.Semaphore(settings.embed_in_flight)
        # Decoded pixels waiting for Triton; one more batch than can be under way.
        self._pixel_slots = asyncio.Semaphore(settings.embed_batch * (settings.embed_in_flight + 1))
        self._decoder = Decoder(spec, settings, pool)
        self._recent: OrderedDict[str, KnownVector] = OrderedDict()

    def close(self) -> None:
        """End the process that decodes big pictures, if it runs."""
        self._decoder.close()

    async def prepare(self, records: Sequence[LogRecord]) -> Prepared:
        """Everything but the writing. Waits while Triton, Weaviate or the storage is down."""
        prepared = Prepared(records)
        additions = self._sort(records, prepared)
        known = await self._known([event.sha256 for _, event in additions])
        unknown: list[tuple[LogRecord, ImageAdded]] = []
        for record, event in additions:
            if (vector := known.get(event.sha256)) is not None:
                prepared.additions.append(_reused(record, event, vector))
            else:
                unknown.append((record, event))
        await self._infer(unknown, prepared)
        return prepared

    def _sort(
        self, records: Sequence[LogRecord], prepared: Prepared
    ) -> list[tuple[LogRecord, ImageAdded]]:
        """Of each key only the last event counts: the earlier ones were overtaken."""
        last: dict[str, tuple[LogRecord, ImageAdded | ImageRemoved]] = {}
        for record in records:
            try:
                change = decode_image_change(record.key, record.value)
            except InvalidEvent as error:
                prepared.poison.append(_unreadable(record, error))
                continue
            last.pop(change.image_id, None)
            last[change.image_id] = (record, change)
        additions: list[tuple[LogRecord, ImageAdded]] = []
        for record, change in last.values():
            if isinstance(change, ImageAdded):
                additions.append((record, change))
            else:
                prepared.removals.append((record, change))
        return additions

    async def _known(self, hashes: Sequence[str]) -> dict[str, KnownVector]:
        known = {sha256: self._recent[sha256] for sha256 in hashes if sha256 in self._recent}
        missing = [sha256 for sha256 in hashes if sha256 not in known]
        if missing:
            known.update(
                await self._retry.until_available(
                    lambda: self._index.known_vectors(self._collection, missing),
                    "look up known vectors",
                )
            )
        return known

    async def _infer(
        self, unknown: Sequence[tuple[LogRecord, ImageAdded]], prepared: Prepared
    ) -> None:
        """Decode in the pool and embed in batches, both at once.

        Of several records with one content, the first is inferred and the others share its vector.
        """
        first: dict[str, tuple[LogRecord, ImageAdded]] = {}
        copies: list[tuple[LogRecord, ImageAdded]] = []
        for record, event in unknown:
            if event.sha256 in first:
                copies.append((record, event))
            else:
                first[event.sha256] = (record, event)
        decoded: asyncio.Queue[_Decoded | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decode_all(list(first.values()), decoded, prepared))
            group.create_task(self._embed_all(decoded, prepared))
        for record, event in copies:
            vector = self._recent.get(event.sha256)
            if vector is not None:
                prepared.additions.append(_reused(record, event, vector))
                continue
            # Its twin failed, or was superseded, by its own path: this one has its own chance.
            await self._infer([(record, event)], prepared)

    async def _decode_all(
        self,
        items: Sequence[tuple[LogRecord, ImageAdded]],
        decoded: asyncio.Queue[_Decoded | None],
        prepared: Prepared,
    ) -> None:
        async def one(record: LogRecord, event: ImageAdded) -> None:
            try:
                decoded.put_nowait(await self._read_and_decode(record, event))
            except Superseded:
                self._pixel_slots.release()
                prepared.superseded += 1
            except (Rejected, OSError) as error:
                self._pixel_slots.release()
                attempts = self._settings.max_attempts if isinstance(error, OSError) else 1
                prepared.poison.append(
                    Poison(record, event.image_id, type(error).__name__, str(error), attempts)
                )
            except BaseException:
                self._pixel_slots.release()
                raise

        async with asyncio.TaskGroup() as group:
            for record, event in items:
                await self._pixel_slots.acquire()
                group.create_task(one(record, event))
        decoded.put_nowait(None)

    async def _read_and_decode(self, record: LogRecord, event: ImageAdded) -> _Decoded:
        settings = self._settings

        async def patiently() -> Decoding:
            # A file that cannot be read may be locked for a moment, or be on a shaky disk.
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(OSError),
                stop=stop_after_attempt(settings.max_attempts),
                wait=wait_random_exponential(settings.retry_initial, settings.retry_maximum),
                reraise=True,
            ):
                with attempt:
                    return await self._decoder.decode(event)
            raise AssertionError("unreachable: the last attempt raises")

        done = await self._retry.until_available(patiently, f"read {event.uri}")
        return _Decoded(record, event, done)

    async def _embed_all(self, decoded: asyncio.Queue[_Decoded | None], prepared: Prepared) -> None:
        ended = False
        async with asyncio.TaskGroup() as group:
            while not ended:
                chunk: list[_Decoded] = []
                while len(chunk) < self._settings.embed_batch:
                    item = await decoded.get()
                    if item is None:
                        ended = True
                        break
                    chunk.append(item)
                if chunk:
                    await self._in_flight.acquire()
                    group.create_task(self._embed(chunk, prepared))

    async def _embed(self, chunk: Sequence[_Decoded], prepared: Prepared) -> None:
        try:
            started = time.perf_counter()
            pixels = np.stack([item.done.picture.pixels for item in chunk])
            try:
                vectors = await self._retry.until_available(
                    lambda: self._embedder.embed_images(self._spec.name, pixels), "embed pictures"
                )
            except Rejected as error:
                self._refuse(chunk, error, prepared)
                return
            embed_ms = (time.perf_counter() - started) * 1e3 / len(chunk)
            self._counters.vectors_inferred += len(chunk)
            for item, vector in zip(chunk, vectors, strict=True):
                known = _known_of(item.done.picture, vector.tolist())
                self._remember(item.event.sha256, known)
                timings = StageTimings(
                    read=item.done.read_ms, decode=item.done.decode_ms, embed=embed_ms
                )
                prepared.additions.append(
                    Addition(item.record, item.event, _image(item.event, known), False, timings)
                )
        finally:
            self._in_flight.release()
            for _ in chunk:
                self._pixel_slots.release()

    @staticmethod
    def _refuse(chunk: Sequence[_Decoded], error: Rejected, prepared: Prepared) -> None:
        """The model refuses a batch for its shape or type, so it would refuse each one alone."""
        prepared.poison.extend(
            Poison(item.record, item.event.image_id, type(error).__name__, str(error))
            for item in chunk
        )

    def _remember(self, sha256: str, known: KnownVector) -> None:
        self._recent[sha256] = known
        if len(self._recent) > RECENT_VECTORS:
            self._recent.popitem(last=False)


def _unreadable(record: LogRecord, error: InvalidEvent) -> Poison:
    try:
        image_id = decode_key(record.key)
    except InvalidEvent:
        image_id = ""
    return Poison(record, image_id, type(error).__name__, str(error), is_newest=False)


def _reused(record: LogRecord, event: ImageAdded, known: KnownVector) -> Addition:
    return Addition(record, event, _image(event, known), True, StageTimings())


def _known_of(picture: Picture, vector: Sequence[float]) -> KnownVector:
    return KnownVector(
        vector=vector,
        width=picture.width,
        height=picture.height,
        taken_at=picture.taken_at,
        camera=picture.camera,
        latitude=picture.latitude,
        longitude=picture.longitude,
    )


def _image(event: ImageAdded, known: KnownVector) -> ImageRecord:
    return ImageRecord(
        image_id=event.image_id,
        uri=event.uri,
        sha256=event.sha256,
        media_type=event.media_type,
        size_bytes=event.size_bytes,
        width=known.width,
        height=known.height,
        modified_at=event.modified_at,
        added_at=event.added_at,
        vector=known.vector,
        taken_at=known.taken_at,
        camera=known.camera,
        latitude=known.latitude,
        longitude=known.longitude,
    )
