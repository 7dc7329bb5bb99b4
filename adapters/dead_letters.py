"""Reading `images.dlq`: which records could not be handled, and which of them were settled since.

The topic is never rewritten. A letter is settled by a record without a value under the same key,
whose headers name the letter and say how it was settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adapters.event_log import EventLog, Position
from schemas.codec import decode
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ

SETTLES_HEADER: Final = "settles"
SETTLED_AS_HEADER: Final = "settled-as"
FROM_HEADER: Final = "retried-from"
"""On a retried record, and on the letter it becomes if it fails again: the letters before it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and where it stands; `history` names the letters before it, oldest first."""

    position: Position
    event: DeadLetter
    history: tuple[str, ...] = ()
    settled_as: str | None = None

    @property
    def name(self) -> str:
        """What the commands call it: `partition:offset` in `images.dlq`."""
        return name_of(self.position)


def name_of(position: Position) -> str:
    """`partition:offset`."""
    return f"{position.partition}:{position.offset}"


async def read_letters(log: EventLog) -> list[Letter]:
    """Every letter, settled or not, in the order of their source records.

    Raises:
        Unavailable: the broker cannot be read now.
    """
    letters: dict[str, Letter] = {}
    settled: dict[str, str] = {}
    async for record in log.read_all(IMAGES_DLQ):
        if record.value is None:
            name = record.headers.get(SETTLES_HEADER, b"").decode()
            settled[name] = record.headers.get(SETTLED_AS_HEADER, b"").decode()
            continue
        history = tuple(record.headers.get(FROM_HEADER, b"").decode().split())
        letter = Letter(record.position, decode(DeadLetter, record.value), history)
        letters[letter.name] = letter
    found = [
        Letter(letter.position, letter.event, letter.history, settled.get(name))
        for name, letter in letters.items()
    ]
    return sorted(found, key=lambda each: (each.event.source_partition, each.event.source_offset))
