"""What can go wrong at a server, reduced to what the caller must do about it.

AdapterError
├── Unavailable   the server cannot answer now: wait and try the same again
│   ├── SlowFile  a file could not be read in the time for that: its disk, or its server, hangs
│   └── TooSlow   it is alive, but had too much to do: wait, and ask for less at once
└── Rejected      the server (or decoder) refuses this input: trying again cannot help
    ├── DecoderCrashed   it ended the process that decoded it
    ├── DecoderMemory    decoding it took more memory than it should
    └── DecoderTimeout   decoding it took too long
"""

from collections.abc import Iterator
from contextlib import contextmanager


class AdapterError(Exception):
    """Base of all errors that leave `adapters`."""


class Unavailable(AdapterError):
    """A server is down, unreachable, overloaded or too slow. The same call may succeed later."""


class SlowFile(Unavailable):
    """A file was not read to its end in the time that there is for it."""


class TooSlow(Unavailable):
    """A server that is alive did not answer in time. Ask for less at once; one thing alone is
    given more time at the next call."""


class Rejected(AdapterError):
    """This input will never be accepted; its message is the reason a user is shown."""


class DecoderCrashed(Rejected):
    """These bytes end the process that decodes them."""


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
    """Raise foreign exceptions as ours; those of neither kind pass through as the bugs they are."""
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
