"""The one policy for what goes wrong while records are handled.

server down (`Unavailable`)        waited for, without bound, with back-off and jitter
record or picture is bad           dead-lettered, the rest of its batch goes on
picture cannot be read for now     tried `max_attempts` times, then dead-lettered
most of the records are bad        the consumer stops: the fault is not the records'
anything else                      a bug: the process ends and is started again
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from adapters.dead_letters import FROM_HEADER
from adapters.event_log import LogRecord, Message
from adapters.retry import until_available
from consumers.dead_letters import ATTEMPTS_HEADER, UNREADABLE_KEY
from schemas.events import DeadLetter

T = TypeVar("T")

MINIMUM_SAMPLE: Final = 50
"""Fewer records than this say nothing about the share of bad ones."""


class TooMuchPoison(Exception):
    """Nearly everything is bad, so something else is: a missing mount, a wrong topic, a bug."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that will never be handled, and why."""

    record: LogRecord
    image_id: str
    error_class: str
    reason: str
    attempts: int = 1
    is_newest: bool = True
    """Whether it is the last word on its picture, whose former content is therefore out of date."""

    def message(self, topic: str, model_name: str) -> Message:
        """The dead letter, under the record's own key; a retried record keeps its history."""
        headers = self.record.headers
        before = headers.get(ATTEMPTS_HEADER, b"0").decode()
        history = headers.get(FROM_HEADER, b"").decode()
        return Message(
            key=self.image_id or UNREADABLE_KEY,
            headers={FROM_HEADER: history} if history else {},
            event=DeadLetter(
                image_id=self.image_id,
                error_class=self.error_class,
                reason=self.reason,
                attempts=self.attempts + (int(before) if before.isdecimal() else 0),
                source_topic=topic,
                source_partition=self.record.position.partition,
                source_offset=self.record.position.offset,
                model_name=model_name,
                original_key=self.record.key,
                original_value=self.record.value,
            ),
        )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait, in seconds, and how often to try what is not a server's fault."""

    initial: float = 0.2
    maximum: float = 5.0
    max_attempts: int = 3

    async def until_available(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """The result of `call`, however long its server is down."""
        return await until_available(call, what=what, initial=self.initial, maximum=self.maximum)


class PoisonLimit:
    """Watches the share of bad records among the last `window`."""

    def __init__(self, share: float, window: int) -> None:
        self._share = share
        self._outcomes: deque[bool] = deque(maxlen=window)

    def note(self, good: int, bad: int) -> None:
        """Count a batch, before its dead letters are written.

        Raises:
            TooMuchPoison: more than the allowed share of the window is bad.
        """
        self._outcomes.extend([False] * good)
        self._outcomes.extend([True] * bad)
        poisoned = sum(self._outcomes)
        if len(self._outcomes) >= MINIMUM_SAMPLE and poisoned > self._share * len(self._outcomes):
            raise TooMuchPoison(
                f"{poisoned} of the last {len(self._outcomes)} records cannot be handled; "
                "stopping before they are all dead-lettered"
            )
