"""Write a record of `images` again without ever overtaking a newer one of its key.

Kafka has no compare-and-set. So after writing we look again: where somebody wrote a key between our
reading and our writing, we write their record once more, until ours is not in the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.log.port import EventLog, LogRecord, Message, Position
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded, ImageRemoved
from schemas.topics import IMAGES


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest readable record of a key."""

    position: Position
    change: ImageAdded | ImageRemoved

    def message(self, headers: Mapping[str, str] | None = None) -> Message:
        """The same record, to be written again."""
        event = self.change if isinstance(self.change, ImageAdded) else None
        return Message(self.change.image_id, event, headers or {})


async def latest_records(log: EventLog) -> dict[str, Latest]:
    """image id -> its newest record, removals included; unreadable records are left out."""
    latest: dict[str, Latest] = {}
    async for record in log.read_all(IMAGES):
        if (found := _readable(record)) is not None:
            latest[found.change.image_id] = found
    return latest


def _readable(record: LogRecord) -> Latest | None:
    try:
        return Latest(record.position, decode_image_change(record.key, record.value))
    except InvalidEvent:
        return None


async def republish(
    log: EventLog, messages: Sequence[Message], seen: Mapping[str, Position]
) -> int:
    """Write the messages, based on what was `seen` (image id -> position of its newest record).

    Returns:
        How many of them had been overtaken, so that the newer record was restored.
    """
    overtaken: set[str] = set()
    known = dict(seen)
    pending = list(messages)
    while pending:
        written = await log.publish(IMAGES, pending)
        ours = set(written)
        keys = {message.key for message in pending}
        between: dict[str, Latest] = {}
        async for record in log.read_all(IMAGES):
            if record.position in ours or (found := _readable(record)) is None:
                continue
            key = found.change.image_id
            if key in keys and (key not in known or _after(record.position, known[key])):
                between[key] = found
        last = dict(zip((message.key for message in pending), written, strict=True))
        # Theirs that came after ours wins by itself.
        lost = {k: f for k, f in between.items() if f.position.offset < last[k].offset}
        overtaken |= lost.keys()
        known.update(last)
        pending = [found.message() for found in lost.values()]
    return len(overtaken)


def _after(position: Position, other: Position) -> bool:
    # A key's records are all in one partition.
    return position.offset > other.offset
