"""The errors of servers, classified by what the caller must do about them.

AdapterError
├── Unavailable   the server cannot answer now: wait and try the same again
│   ├── SlowFile  a file was not read in time: its disk or file server hangs
│   └── TooSlow   the server is alive but overloaded: wait, and send less at a time
└── Rejected      the server (or decoder) refuses this input: a retry would fail too
    ├── DecoderCrashed   decoding it ended the decoder's process
    ├── DecoderMemory    decoding it took more memory than allowed
    └── DecoderTimeout   decoding it took too long
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class AdapterError(Exception):
    """Base of the errors that `adapters` raises."""


class Unavailable(AdapterError):
    """A server is down, unreachable, overloaded or too slow. The same call may succeed later."""


class SlowFile(Unavailable):
    """A file was not read to its end in time."""


class TooSlow(Unavailable):
    """A server that is alive did not answer in time. Send fewer inputs at a time; the deadline of a
    single input is longer at the next call."""


class Rejected(AdapterError):
    """This input will never be accepted; the message is the reason that is shown to users."""


class DecoderCrashed(Rejected):
    """Decoding these bytes ends the decoder's process."""


class DecoderMemory(Rejected):
    """Decoding these bytes takes far more memory than their header says."""


class DecoderTimeout(Rejected):
    """Decoding these bytes takes longer than allowed."""


ErrorTable = Mapping[type[Exception], type[AdapterError] | Callable[[Any], type[AdapterError]]]
"""A client's exception -> the error of this module that it becomes, or a function that chooses it.

An exception that is not in the table is treated as its nearest base class that is."""


def text_of(error: BaseException) -> str:
    """The error's message; the name of its class if it has none."""
    return str(error) or type(error).__name__


@contextmanager
def translated(
    what: str, table: ErrorTable, *, text: Callable[[Any], str] = text_of
) -> Iterator[None]:
    """Within the block, raise a client's exceptions as errors of this module.

    Each adapter has one table and one context manager that passes it here (`kafka_errors`,
    `weaviate_errors`, `triton_errors`, `hub_errors`). Exceptions without an entry are bugs, and
    pass through. The message is `what`, a colon, and `text` of the exception.
    """
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        ours = class_for(error, table)
        if ours is None:
            raise
        raise ours(f"{what}: {text(error)}") from error


def class_for(error: Exception, table: ErrorTable) -> type[AdapterError] | None:
    """The class that this exception becomes; None if it has no entry in the table."""
    entry = next((table[each] for each in type(error).__mro__ if each in table), None)
    return entry if entry is None or isinstance(entry, type) else entry(error)
