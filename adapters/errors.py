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

from collections.abc import Iterator
from contextlib import contextmanager


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
    """Decoding these bytes does not end within its time."""


@contextmanager
def translated(
    what: str,
    *,
    unavailable: tuple[type[BaseException], ...] = (),
    rejected: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """Within the block, raise a client's exceptions as errors of this module.

    Other exceptions are bugs and pass through. `what` begins the message.
    """
    try:
        yield
    except AdapterError:
        raise
    except rejected as error:
        raise Rejected(f"{what}: {_text(error)}") from error
    except unavailable as error:
        raise Unavailable(f"{what}: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
