"""The dead letters that nobody settled, as the gateway needs them: all counted, few held whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from adapters.log.dead_letter_reader import Letter, OpenLetters, letter_of, name_of
from adapters.log.port import EventLog, Position
from schemas.topics import IMAGES_DLQ

WHOLE: Final = 10_000
"""Letters whose reasons are held in memory, the newest ones; of the others, which are read again
when somebody looks at them, only what counting takes (some 400 bytes each)."""
REASON_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, and how often it was tried."""

    error_class: str
    text: str
    attempts: int


@dataclass(slots=True, eq=False)
class OpenLetter:
    """A letter; `reason` is None while only its place is held."""

    position: Position
    image_id: str
    occurred_at: datetime
    reason: Reason | None

    @property
    def name(self) -> str:
        """What the commands call it."""
        return name_of(self.position)


class NewestLetters:
    """The newest open letter of each picture, kept current by reading only what is new."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._open: OpenLetters[OpenLetter] = OpenLetters(log, self._kept)
        self._whole = 0

    async def current(self) -> Sequence[OpenLetter]:
        """As of now, newest first.

        Raises:
            Unavailable: the broker cannot be read now.
        """
        letters = await self._open.current()
        self._thin_out(letters)
        ordered = sorted(letters.values(), key=attrgetter("occurred_at"))
        newest = {each.image_id: each for each in ordered}
        return sorted(newest.values(), key=attrgetter("occurred_at"), reverse=True)

    async def complete(self, letters: Sequence[OpenLetter]) -> Sequence[tuple[OpenLetter, Reason]]:
        """These letters with their reasons, but for those that the log holds no more.

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
                # Where the topic has lost its end, another letter may stand there now.
                letter = letter_of(record)
                told = (letter.event.image_id, letter.event.occurred_at)
                if told == (each.image_id, each.occurred_at):
                    reasons[record.position] = _reason(letter)
        return [(each, reasons[each.position]) for each in letters if each.position in reasons]

    def _kept(self, letter: Letter) -> OpenLetter:
        self._whole += 1
        if self._whole > 2 * WHOLE:
            self._thin_out(self._open.known)
        event = letter.event
        return OpenLetter(letter.position, event.image_id, event.occurred_at, _reason(letter))

    def _thin_out(self, letters: Mapping[str, OpenLetter]) -> None:
        """Let go of the reasons of all but the newest letters."""
        whole = [each for each in letters.values() if each.reason is not None]
        whole.sort(key=attrgetter("occurred_at"), reverse=True)
        for letter in whole[WHOLE:]:
            letter.reason = None
        self._whole = min(len(whole), WHOLE)


def _reason(letter: Letter) -> Reason:
    event = letter.event
    return Reason(event.error_class[:200], event.reason[:REASON_CHARACTERS], event.attempts)
