"""The outcome of one batch of records, and counters since the process started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from adapters.index.facts import ImageFacts, values
from adapters.index.port import ImageRecord, KnownVector
from adapters.log.port import LogRecord
from consumers.indexing.failures import Poison
from schemas.events import ImageAdded, ImageRemoved, StageTimings


class ImageToIndex(NamedTuple):
    """An image to be indexed, and the record that asks for it.

    `known` is what an earlier version stored for the same content: its vector is still valid, its
    facts must be read again.
    """

    record: LogRecord
    event: ImageAdded
    known: KnownVector | None = None


@dataclass(frozen=True, slots=True)
class AbsentImage:
    """An image whose content could not be read, and why.

    `storage_is_away`: the storage itself was unavailable, so the image may well exist.
    """

    wanted: ImageToIndex
    reason: str
    storage_is_away: bool = False


@dataclass(frozen=True, slots=True)
class Addition:
    """An image ready to be written."""

    record: LogRecord
    event: ImageAdded
    image: ImageRecord
    vector_reused: bool
    timings: StageTimings


@dataclass(slots=True)
class PreparedBatch:
    """Everything to write for one batch; `records` are its records in log order."""

    records: Sequence[LogRecord]
    additions: list[Addition] = field(default_factory=list)
    removals: list[tuple[LogRecord, ImageRemoved]] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    superseded: int = 0


@dataclass(slots=True)
class IndexingCounters:
    """Counts since the process started."""

    received: int = 0
    indexed: int = 0
    removed: int = 0
    dead_lettered: int = 0
    superseded: int = 0
    vectors_reused: int = 0
    vectors_inferred: int = 0
    looked_up: int = 0
    decoded: int = 0
    refused: int = 0


def reuse_vector(
    wanted: ImageToIndex, known: KnownVector, timings: StageTimings | None = None
) -> Addition:
    """An image whose content already has a vector."""
    image = image_record(wanted.event, known)
    return Addition(wanted.record, wanted.event, image, True, timings or StageTimings())


def image_record(event: ImageAdded, known: KnownVector) -> ImageRecord:
    """The image as the index stores it."""
    return ImageRecord(
        image_id=event.image_id,
        uri=event.uri,
        sha256=event.sha256,
        size_bytes=event.size_bytes,
        modified_at=event.modified_at,
        added_at=event.added_at,
        vector=known.vector,
        **values(ImageFacts, known),
    )
