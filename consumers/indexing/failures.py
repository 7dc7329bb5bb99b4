"""The failure policy for handling records.

server down (`Unavailable`)      retry without limit, with back-off and jitter
record or image is bad           dead-letter it; the rest of its batch goes on
image cannot be read for now     try `max_attempts` times, then dead-letter
image is missing                 as above, unless the log has a newer record; see `absent`
most of the records are bad      stop the consumer: the cause lies elsewhere
anything else                    a bug: the process exits and is restarted
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from adapters.log.dead_letter import (
    VALUE_BYTES,
    attempts_before,
    dead_letter,
    history,
    printable,
)
from adapters.log.dead_letter_reader import FROM_HEADER, UNREADABLE_KEY
from adapters.log.port import LogRecord, Message
from adapters.retry import until_available
from consumers.repair.dead_letters import ATTEMPTS_HEADER

T = TypeVar("T")

MINIMUM_SAMPLE: Final = 50
"""With fewer records than this, the share of bad ones is not judged."""


class TooMuchPoison(Exception):
    """Most records are bad, which points to a cause elsewhere: a missing mount, a wrong topic, a
    bug."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that will never be handled, and why."""

    record: LogRecord
    image_id: str
    error_class: str
    reason: str
    attempts: int = 1
    is_newest: bool = True
    """Whether it is the newest record of its image, so that the indexed content is out of date."""

    def message(self, topic: str, model_name: str, value_limit: int = VALUE_BYTES) -> Message:
        """The dead letter, under the record's own key; a retried record keeps its history.

        `value_limit` is the number of bytes of the record's value to keep.
        """
        headers = self.record.headers
        former = history(headers.get(FROM_HEADER))
        return Message(
            key=printable(self.image_id) or UNREADABLE_KEY,
            headers={FROM_HEADER: former} if former else {},
            event=dead_letter(
                image_id=self.image_id,
                error_class=self.error_class,
                reason=self.reason,
                key=self.record.key,
                value=self.record.value,
                value_limit=value_limit,
                attempts=self.attempts + attempts_before(headers.get(ATTEMPTS_HEADER)),
                source_topic=topic,
                source_partition=self.record.position.partition,
                source_offset=self.record.position.offset,
                model_name=model_name,
            ),
        )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits, in seconds, and the number of attempts where no server is at fault."""

    initial: float = 0.2
    maximum: float = 5.0
    max_attempts: int = 3

    async def until_available(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """The result of `call`; waits as long as its server is down."""
        return await until_available(call, what=what, initial=self.initial, maximum=self.maximum)


class FailureShare:
    """The share of bad outcomes among the last `window`."""

    def __init__(self, share: float, window: int) -> None:
        self._share = share
        self._outcomes: deque[bool] = deque(maxlen=window)

    def note(self, good: int, bad: int) -> None:
        """Count outcomes."""
        self._outcomes.extend([False] * good)
        self._outcomes.extend([True] * bad)

    def is_too_high(self, more: int = 0) -> bool:
        """Whether more than `share` are bad, with `more` further bad ones counted in."""
        size = self._outcomes.maxlen or 0
        outcomes = [*self._outcomes, *[True] * more][-size:]
        return len(outcomes) >= MINIMUM_SAMPLE and sum(outcomes) > self._share * len(outcomes)

    def __str__(self) -> str:
        return f"{sum(self._outcomes)} of the last {len(self._outcomes)}"


class PoisonLimit:
    """Watches the share of bad records among the last `window`."""

    def __init__(self, share: float, window: int) -> None:
        self._recent = FailureShare(share, window)

    def note(self, good: int, bad: int) -> None:
        """Count a batch; call this before its dead letters are written.

        Raises:
            TooMuchPoison: more than the allowed share of the window is bad.
        """
        self._recent.note(good, bad)
        if self._recent.is_too_high():
            raise TooMuchPoison(
                f"{self._recent} records cannot be handled; "
                "stopping before they are all dead-lettered"
            )
