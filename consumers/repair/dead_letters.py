"""List, retry or drop the dead letters in `images.dlq`; see `adapters.log.dead_letter_reader`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.log.dead_letter import is_whole
from adapters.log.dead_letter_reader import (
    FROM_HEADER,
    Letter,
    read_letters,
    settling,
)
from adapters.log.port import EventLog, LogRecord, Message, Position
from consumers.repair.republish import LatestRecord, latest_records, republish
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded, ImageRemoved
from schemas.topics import IMAGES, IMAGES_DLQ

ATTEMPTS_HEADER: Final = "attempts"
"""Header of a retried record: the number of earlier attempts."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Selects letters; a field that is None matches all. `offsets` is an inclusive range of offsets
    of the source topic."""

    names: frozenset[str] | None = None
    error_class: str | None = None
    source_partition: int | None = None
    offsets: tuple[int, int] | None = None

    def matches(self, letter: Letter) -> bool:
        """Whether the letter is selected."""
        if self.names is not None and letter.name not in self.names:
            return False
        if self.error_class is not None and letter.event.error_class != self.error_class:
            return False
        if self.source_partition is None and self.offsets is None:
            return True
        source = letter.source
        return (
            source is not None
            and (self.source_partition is None or source.partition == self.source_partition)
            and (self.offsets is None or self.offsets[0] <= source.offset <= self.offsets[1])
        )


@dataclass(frozen=True, slots=True)
class RetryResult:
    """The outcome of a retry, by the letters' names."""

    published: list[str]
    superseded: list[str]
    """The image has a newer event, so there is nothing to retry."""
    unreadable: dict[str, str]
    """Name -> why the original record cannot be decoded by this version, or is not available."""


async def open_letters(log: EventLog, wanted: LetterFilter | None = None) -> list[Letter]:
    """The letters that are not settled yet."""
    wanted = wanted or LetterFilter()
    return [
        letter
        for letter in await read_letters(log)
        if letter.settled_as is None and wanted.matches(letter)
    ]


def is_about(letter: Letter, newest: LatestRecord) -> bool:
    """Whether the letter is about this record.

    Its position alone does not show that: if the log has lost its end, another record may have the
    same position, of another image or of another version of the same image.
    """
    event = letter.event
    if (letter.source, event.image_id) != (newest.position, newest.change.image_id):
        return False
    if not is_whole(event) or (event.original_key is None and event.original_value is None):
        return True
    try:
        change = decode_image_change(event.original_key, event.original_value)
    except InvalidEvent:
        return False  # The newest record can be read.
    return _content(change) == _content(newest.change)


def _content(change: ImageAdded | ImageRemoved) -> str | None:
    return change.sha256 if isinstance(change, ImageAdded) else None


async def retry(log: EventLog, letters: Sequence[Letter]) -> RetryResult:
    """Publish the original records to `images` again, with their history; settle the letters."""
    done = RetryResult([], [], {})
    latest = await latest_records(log)
    originals = await _originals(log, letters)
    again: list[Message] = []
    settled: list[Message] = []
    queued: set[str] = set()
    for letter in letters:
        event = letter.event
        try:
            change = _change(letter, originals)
        except InvalidEvent as error:
            done.unreadable[letter.name] = str(error)
            continue
        newest = latest.get(change.image_id)
        is_newest = newest is None or is_about(letter, newest)
        if not is_newest or change.image_id in queued or not isinstance(change, ImageAdded):
            done.superseded.append(letter.name)
            settled.append(settling(letter, "overtaken"))
            continue
        queued.add(change.image_id)
        history = " ".join([*letter.history, letter.name])
        headers = {ATTEMPTS_HEADER: str(event.attempts), FROM_HEADER: history}
        again.append(Message(change.image_id, change, headers))
        done.published.append(letter.name)
        settled.append(settling(letter, "retried"))
    await republish(log, again, {key: found.position for key, found in latest.items()})
    # Settle after publishing: a crash in between retries a letter twice instead of losing it.
    await log.publish(IMAGES_DLQ, settled)
    return done


async def _originals(log: EventLog, letters: Sequence[Letter]) -> dict[Position, LogRecord]:
    """The records of truncated letters, where the log still holds them.

    Raises:
        Unavailable: the broker cannot be read now.
    """
    wanted = {
        letter.source: letter.event.original_value_sha256
        for letter in letters
        if letter.source and letter.event.source_topic == IMAGES.name and not is_whole(letter.event)
    }
    start: dict[int, int] = {}
    for number, offset in wanted:
        start[number] = min(offset, start.get(number, offset))
    found: dict[Position, LogRecord] = {}
    if not start:
        return found
    async for record in log.read_all(IMAGES, start):
        # In a recreated topic, another record may have the same offset.
        if record.position in wanted and _sha256(record.value) == wanted[record.position]:
            found[record.position] = record
    return found


def _sha256(value: bytes | None) -> str | None:
    return None if value is None else hashlib.sha256(value).hexdigest()


def _change(letter: Letter, originals: Mapping[Position, LogRecord]) -> ImageAdded | ImageRemoved:
    """The event of the letter's record; a truncated value is never decoded.

    Raises:
        InvalidEvent: it cannot be decoded, or neither the letter nor the log holds it in full.
    """
    event = letter.event
    if is_whole(event):
        return decode_image_change(event.original_key, event.original_value)
    original = originals.get(letter.source) if letter.source else None
    if original is None:
        raise InvalidEvent(
            "the letter contains only the beginning of its record, and the log has no copy of it"
        )
    return decode_image_change(original.key, original.value)


async def drop(log: EventLog, letters: Iterable[Letter]) -> int:
    """Settle letters without retrying them; returns their number."""
    messages = [settling(letter, "dropped") for letter in letters]
    await log.publish(IMAGES_DLQ, messages)
    return len(messages)
