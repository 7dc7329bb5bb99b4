"""Publish records of `images` again without superseding a newer record of the same key.

Kafka has no compare-and-set. So the topic is read again after writing: if another record of a key
was written between our read and our write, that record is published again. This repeats until no
record of ours supersedes a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.log.port import EventLog, LogRecord, Message, Position
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded, ImageRemoved
from schemas.topics import IMAGES


@dataclass(frozen=True, slots=True)
class LatestRecord:
    """The newest decodable record of a key."""

    position: Position
    change: ImageAdded | ImageRemoved

    def message(self, headers: Mapping[str, str] | None = None) -> Message:
        """The same record as a message to publish again."""
        event = self.change if isinstance(self.change, ImageAdded) else None
        return Message(self.change.image_id, event, headers or {})


async def latest_records(log: EventLog) -> dict[str, LatestRecord]:
    """Image id -> its newest record, removals included; skips records that cannot be decoded."""
    latest: dict[str, LatestRecord] = {}
    async for record in log.read_all(IMAGES):
        if (found := _readable(record)) is not None:
            latest[found.change.image_id] = found
    return latest


def _readable(record: LogRecord) -> LatestRecord | None:
    try:
        return LatestRecord(record.position, decode_image_change(record.key, record.value))
    except InvalidEvent:
        return None


async def republish(
    log: EventLog, messages: Sequence[Message], seen: Mapping[str, Position]
) -> int:
    """Publish the messages, which are based on `seen` (image id -> position of its newest record).

    Returns:
        The number of keys with a newer record, which was published again.
    """
    superseded: set[str] = set()
    known = dict(seen)
    pending = list(messages)
    while pending:
        written = await log.publish(IMAGES, pending)
        ours = set(written)
        keys = {message.key for message in pending}
        between: dict[str, LatestRecord] = {}
        async for record in log.read_all(IMAGES):
            if record.position in ours or (found := _readable(record)) is None:
                continue
            key = found.change.image_id
            if key in keys and (key not in known or _after(record.position, known[key])):
                between[key] = found
        last = dict(zip((message.key for message in pending), written, strict=True))
        # A newer record that was written after ours already supersedes it.
        lost = {k: f for k, f in between.items() if f.position.offset < last[k].offset}
        superseded |= lost.keys()
        known.update(last)
        pending = [found.message() for found in lost.values()]
    return len(superseded)


def _after(position: Position, other: Position) -> bool:
    # All records of a key are in one partition.
    return position.offset > other.offset
