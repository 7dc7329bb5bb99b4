"""Open dead letters: all are counted; reasons are held in memory only for the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from adapters.log.dead_letter_reader import Letter, OpenLetters, letter_of, name_of
from adapters.log.port import EventLog, Position
from schemas.topics import IMAGES_DLQ

WITH_REASON: Final = 10_000
"""How many of the newest letters are held with their reasons. The others take some 400 bytes each,
which counting needs; their reasons are read from the log when they are shown."""
REASON_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Why an image could not be indexed, and after how many attempts."""

    error_class: str
    text: str
    attempts: int


@dataclass(slots=True, eq=False)
class OpenLetter:
    """A letter; `reason` is None if it is not held in memory."""

    position: Position
    image_id: str
    occurred_at: datetime
    reason: FailureReason | None

    @property
    def name(self) -> str:
        """The letter's name in commands."""
        return name_of(self.position)


class NewestOpenLetters:
    """The newest open letter of each image, kept current by reading only new records."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._open: OpenLetters[OpenLetter] = OpenLetters(log, self._open_letter)
        self._with_reason = 0

    async def current(self) -> Sequence[OpenLetter]:
        """The letters as of now, newest first.

        Raises:
            Unavailable: the broker cannot be read now.
        """
        letters = await self._open.current()
        self._thin_out(letters)
        ordered = sorted(letters.values(), key=attrgetter("occurred_at"))
        newest = {each.image_id: each for each in ordered}
        return sorted(newest.values(), key=attrgetter("occurred_at"), reverse=True)

    async def with_reasons(
        self, letters: Sequence[OpenLetter]
    ) -> Sequence[tuple[OpenLetter, FailureReason]]:
        """These letters with their reasons, without those that the log no longer holds.

        Raises:
            Unavailable: the broker cannot be read now.
        """
        reasons = {each.position: each.reason for each in letters if each.reason is not None}
        missing = {each.position: each for each in letters if each.reason is None}
        if missing:
            start: dict[int, int] = {}
            for number, offset in missing:
                start[number] = min(offset, start.get(number, offset))
            async for record in self._log.read_all(IMAGES_DLQ, start):
                if (each := missing.get(record.position)) is None or record.value is None:
                    continue
                # If the topic has lost records, another letter may have this offset now.
                letter = letter_of(record)
                found = (letter.event.image_id, letter.event.occurred_at)
                if found == (each.image_id, each.occurred_at):
                    reasons[record.position] = _reason(letter)
        return [(each, reasons[each.position]) for each in letters if each.position in reasons]

    def _open_letter(self, letter: Letter) -> OpenLetter:
        self._with_reason += 1
        if self._with_reason > 2 * WITH_REASON:
            self._thin_out(self._open.known)
        event = letter.event
        return OpenLetter(letter.position, event.image_id, event.occurred_at, _reason(letter))

    def _thin_out(self, letters: Mapping[str, OpenLetter]) -> None:
        """Drop the reasons of all but the newest letters."""
        with_reason = [each for each in letters.values() if each.reason is not None]
        with_reason.sort(key=attrgetter("occurred_at"), reverse=True)
        for letter in with_reason[WITH_REASON:]:
            letter.reason = None
        self._with_reason = min(len(with_reason), WITH_REASON)


def _reason(letter: Letter) -> FailureReason:
    event = letter.event
    return FailureReason(event.error_class[:200], event.reason[:REASON_CHARACTERS], event.attempts)
