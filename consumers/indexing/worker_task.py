"""Read and decode one image in a worker process."""

from __future__ import annotations

import time

from adapters.embedder.spec import ModelSpec
from consumers.indexing.reading import Limits, read
from imaging.decode import DRAFT_FACTOR, decode
from imaging.decoded_image import DecodedImage
from imaging.sandbox.worker import NeedsMemory, Phase, enter_phase
from imaging.worker_tasks import begin, rejecting_unknown_errors
from schemas.events import ImageAdded


def read_and_decode(
    event: ImageAdded, data: bytes | None, spec: ModelSpec, limits: Limits, *, memory: int
) -> tuple[DecodedImage, float, float]:
    """The decoded image, and the milliseconds that reading and decoding took.

    `data` is the file's content if it was read before; None for a local file, which is read here.

    Raises:
        NeedsMemory: the file or the decoded image needs more than `memory` bytes.
        Superseded, Rejected, OSError: as `consumers.indexing.reading.read` and
            `imaging.decode.decode`.
    """
    started = time.perf_counter()
    if data is None:
        enter_phase(Phase.READING)
        if memory < event.size_bytes <= limits.max_bytes:
            raise NeedsMemory(event.size_bytes)
        data = read(event, max_bytes=limits.max_bytes)
    between = time.perf_counter()
    with rejecting_unknown_errors():
        begin(data, DRAFT_FACTOR * max(spec.width, spec.height), limits.max_pixels, memory)
        image = decode(data, spec, max_pixels=limits.max_pixels)
    ended = time.perf_counter()
    return image, (between - started) * 1e3, (ended - between) * 1e3
