"""The errors of aiokafka as errors of `adapters.errors`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordTooLargeError,
)

from adapters.errors import ErrorTable, Rejected, Unavailable, translated

REFUSED: Final = (MessageSizeTooLargeError, RecordTooLargeError, InvalidTopicError)
"""Errors about a message, which leave the producer usable."""

TABLE: Final[ErrorTable] = {
    **dict.fromkeys(REFUSED, Rejected),
    KafkaError: Unavailable,
    # Of sockets, TLS and time limits.
    OSError: Unavailable,
}


def kafka_errors(what: str) -> AbstractContextManager[None]:
    """Within the block, raise aiokafka's errors as `Rejected` or `Unavailable`.

    `what` is done in the block, and begins the message.
    """
    return translated(what, TABLE)
