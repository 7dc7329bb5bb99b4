"""Reading `images.dlq`: the records that could not be handled, and which of them were settled.

The topic is append-only. A letter is settled by a record with the same key and no value, whose
headers name the letter and state how it was settled. If the key differs, the topic has lost the
letter that was settled, and another letter has taken its offset since.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from adapters.log.dead_letter import dead_letter
from adapters.log.port import EventLog, LogRecord, Message, Position
from schemas.codec import InvalidEvent, decode
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ

T = TypeVar("T")

SETTLES_HEADER: Final = "settles"
SETTLED_AS_HEADER: Final = "settled-as"
FROM_HEADER: Final = "retried-from"
"""Header of a retried record, and of its letter if it fails again: the letters before it."""


UNREADABLE: Final = "UnreadableLetter"
"""The error class of a record in the topic that this version cannot read as a letter."""
UNREADABLE_KEY: Final = "unreadable-key"
LATEST_SECONDS: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
VANISHED: Final = "Vanished"
"""The error class of an image whose file was missing without an event of its removal."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and its position; `history` names the letters before it, oldest first."""

    position: Position
    event: DeadLetter
    history: tuple[str, ...] = ()
    settled_as: str | None = None

    @property
    def name(self) -> str:
        """`partition:offset` in `images.dlq`, by which commands refer to it."""
        return name_of(self.position)

    @property
    def key(self) -> str:
        """The key of the record that settles it."""
        return self.event.image_id or UNREADABLE_KEY

    @property
    def source(self) -> Position | None:
        """The position of the record that the letter is about; None if there is no record.

        Earlier versions wrote 0 and 0 for a file without a record. A letter about a record always
        contains a key or a value, as every record has one.
        """
        event = self.event
        if event.source_partition is None or event.source_offset is None:
            return None
        of_a_record = event.original_key is not None or event.original_value is not None
        if not of_a_record and event.source_partition == event.source_offset == 0:
            return None
        return Position(event.source_partition, event.source_offset)


def name_of(position: Position) -> str:
    """`partition:offset`."""
    return f"{position.partition}:{position.offset}"


async def read_letters(log: EventLog) -> list[Letter]:
    """Every letter, settled or not, ordered by source record; those without one come first.

    Raises:
        Unavailable: the broker cannot be read now.
    """
    letters: dict[str, Letter] = {}
    settled: dict[tuple[str, str], str] = {}
    async for record in log.read_all(IMAGES_DLQ):
        if record.value is None:
            settled[_settles(record)] = _text(record, SETTLED_AS_HEADER)
        else:
            letter = letter_of(record)
            letters[letter.name] = letter
    found = [
        replace(letter, settled_as=settled.get((name, letter.key)))
        for name, letter in letters.items()
    ]
    return sorted(found, key=_order)


def letter_of(record: LogRecord) -> Letter:
    """The letter in a record with a value.

    A record that cannot be read as a letter becomes a letter of the class `UNREADABLE`.
    """
    history = tuple(_text(record, FROM_HEADER).split())
    try:
        event = decode(DeadLetter, record.value)
    except InvalidEvent as error:
        event = dead_letter(
            image_id=_key(record),
            error_class=UNREADABLE,
            reason=f"this record of {IMAGES_DLQ.name} cannot be read: {error}",
            attempts=1,
            source_topic=IMAGES_DLQ.name,
            occurred_at=_written_at(record),
        )
    return Letter(record.position, event, history)


def settling(letter: Letter, how: str) -> Message:
    """The record that settles a letter: "retried", "overtaken" or "dropped"."""
    return Message(
        key=letter.key,
        event=None,
        headers={SETTLES_HEADER: letter.name, SETTLED_AS_HEADER: how},
    )


def _settles(record: LogRecord) -> tuple[str, str]:
    """The name and key of the letter that is settled by this record, which has no value."""
    return _text(record, SETTLES_HEADER), _key(record)


def _key(record: LogRecord) -> str:
    return (record.key or b"").decode(errors="backslashreplace")


def _text(record: LogRecord, header: str) -> str:
    # A header may have no value.
    return (record.headers.get(header) or b"").decode(errors="replace")


def _written_at(record: LogRecord) -> datetime:
    """Kafka's timestamp, which its producer may set to anything, limited to valid dates."""
    seconds = min(max(record.timestamp_ms / 1000, 0.0), LATEST_SECONDS)
    return datetime.fromtimestamp(seconds, UTC)


def _order(letter: Letter) -> tuple[int, int, str]:
    source = letter.source
    return (-1, 0, letter.name) if source is None else (source.partition, source.offset, "")


class OpenLetters(Generic[T]):
    """The letters that are not settled; each update reads only new records.

    Args:
        log: the log with `images.dlq`.
        keep: returns the value to store for a letter, or None to ignore the letter.
    """

    def __init__(self, log: EventLog, keep: Callable[[Letter], T | None]) -> None:
        self._log = log
        self._keep = keep
        self._next: dict[int, int] = {}
        self.known: dict[str, T] = {}
        """Name -> the value that `keep` returned, as of the last update."""
        self._keys: dict[str, str] = {}
        """Name -> the key of the record that settles the letter."""
        self._settled: set[tuple[str, str]] = set()
        """Settled letters that were not yet read: partitions are read in any order."""
        self._reading = asyncio.Lock()

    async def current(self) -> Mapping[str, T]:
        """Name -> the value that `keep` returned, updated to the end of the topic.

        Raises:
            Unavailable: the broker cannot be read now.
        """
        async with self._reading:
            bounds = await self._log.bounds(IMAGES_DLQ)
            if any(end < self._next.get(number, 0) for number, (_, end) in bounds.items()):
                # The topic was replaced, or has lost its end.
                self.known, self._keys, self._next, self._settled = {}, {}, {}, set()
            new = {
                number: max(first, self._next.get(number, 0))
                for number, (first, end) in bounds.items()
                if end > self._next.get(number, 0)
            }
            if new:
                async for record in self._log.read_all(IMAGES_DLQ, new):
                    self._take(record)
                # Also skip a gap at the end that compaction has left.
                for number in new:
                    self._next[number] = max(self._next.get(number, 0), bounds[number][1])
                self._settled = {each for each in self._settled if self._is_ahead(each[0])}
            return self.known

    def _take(self, record: LogRecord) -> None:
        if record.value is None:
            name, key = _settles(record)
            if self._keys.get(name) == key:
                del self.known[name], self._keys[name]
            elif self._is_ahead(name):
                self._settled.add((name, key))
        else:
            letter = letter_of(record)
            if (letter.name, letter.key) in self._settled:
                self._settled.discard((letter.name, letter.key))
            elif (value := self._keep(letter)) is not None:
                self.known[letter.name], self._keys[letter.name] = value, letter.key
        self._next[record.position.partition] = record.position.offset + 1

    def _is_ahead(self, name: str) -> bool:
        """Whether the letter of this name has not been read yet."""
        position = _position(name)
        return position is not None and position.offset >= self._next.get(position.partition, 0)


def _position(name: str) -> Position | None:
    """The position that a letter's name states; None if it is no valid name."""
    parts = name.split(":")
    if len(parts) != 2 or not all(re.fullmatch(r"\d{1,18}", part, re.ASCII) for part in parts):
        return None
    found = Position(int(parts[0]), int(parts[1]))
    return found if name_of(found) == name else None
