"""The tasks of worker processes; only these call the decoders.

Each function is called in a worker (`imaging.sandbox`) with `memory`, the bytes it may take. It
raises `NeedsMemory` if the image's header, or the size of its file, shows that it needs more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.embedder.spec import ModelSpec
from adapters.errors import AdapterError, Rejected
from imaging.decode import DRAFT_FACTOR, decode
from imaging.decode_memory import memory_needed_at
from imaging.decoded_image import DecodedImage
from imaging.sandbox.worker import NeedsMemory, Phase, enter_phase
from imaging.thumbnail import check
from imaging.thumbnail import thumbnail as make_thumbnail

logger = logging.getLogger(__name__)


def decode_image(data: bytes, spec: ModelSpec, max_pixels: int, *, memory: int) -> DecodedImage:
    """The image as a model needs it.

    Raises:
        Rejected: as `imaging.decode.decode`.
        NeedsMemory
    """
    with rejecting_unknown_errors():
        begin(data, DRAFT_FACTOR * max(spec.width, spec.height), max_pixels, memory)
        return decode(data, spec, max_pixels=max_pixels)


def thumbnail(
    source: Path | bytes, edge: int, max_pixels: int, max_bytes: int, *, memory: int
) -> bytes:
    """A JPEG of the upright image, at most `edge` pixels each way.

    Raises:
        Rejected: as `imaging.thumbnail.thumbnail`, or the file has more than `max_bytes`.
        NeedsMemory
        OSError: the file cannot be read.
    """
    data = _content(source, max_bytes, memory)
    with rejecting_unknown_errors():
        begin(data, DRAFT_FACTOR * edge, max_pixels, memory)
        return make_thumbnail(data, edge=edge, max_pixels=max_pixels)


def media_type(source: Path | bytes, max_pixels: int, max_bytes: int, *, memory: int) -> str:
    """The media type of an image, after decoding it completely.

    Raises:
        Rejected: as `imaging.thumbnail.check`, or the file has more than `max_bytes`.
        NeedsMemory
        OSError: the file cannot be read.
    """
    data = _content(source, max_bytes, memory)
    with rejecting_unknown_errors():
        begin(data, 1, max_pixels, memory)
        return check(data, max_pixels=max_pixels)


def _content(source: Path | bytes, max_bytes: int, memory: int) -> bytes:
    if isinstance(source, bytes):
        return source
    enter_phase(Phase.READING)
    size = source.stat().st_size
    if size > max_bytes:
        raise Rejected(f"the file has {size} bytes, more than {max_bytes}")
    if size > memory:
        raise NeedsMemory(size)
    return source.read_bytes()


@contextmanager
def rejecting_unknown_errors() -> Iterator[None]:
    """Within the block, any unknown error of a decoder means that the file is damaged.

    No list of decoders' errors is complete, and an image with an unmapped error would be decoded
    again for ever.

    Raises:
        Rejected: instead of any error that is not our own.
    """
    try:
        yield
    except (AdapterError, NeedsMemory, MemoryError):
        raise
    except Exception as error:
        logger.warning("unexpected error of a decoder", exc_info=True)
        raise Rejected(f"damaged picture: {type(error).__name__}: {error}") from error


def begin(data: bytes, edge: int, max_pixels: int, memory: int) -> None:
    """Raise `NeedsMemory` if the header shows that `memory` is not enough."""
    enter_phase(Phase.DECODING)
    needed = len(data) + memory_needed_at(data, edge, max_pixels=max_pixels)
    if needed > memory:
        raise NeedsMemory(needed)
