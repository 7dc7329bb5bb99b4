"""The errors of huggingface_hub as errors of `adapters.errors`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    XetDownloadError,
)

from adapters.errors import (
    AdapterError,
    ErrorTable,
    Rejected,
    Unavailable,
    text_of,
    translated,
)

TRANSPORT: Final[type[Exception]] = HfHubHTTPError.__bases__[0]
"""The base class of its HTTP client's errors; the library has changed its client more than once."""

NO_HUB: Final = (ValueError, LookupError, TypeError, AttributeError)
"""What the library raises if an answer has status 200, but is not JSON, or has other fields."""


def _by_status(error: HfHubHTTPError) -> type[AdapterError]:
    response = error.response
    refused = response is not None and 400 <= response.status_code < 500
    return Rejected if refused else Unavailable


TABLE: Final[ErrorTable] = {
    HfHubHTTPError: _by_status,
    HFValidationError: Rejected,
    # Also raised if the hub cannot be reached, and the file was not fetched before.
    LocalEntryNotFoundError: Unavailable,
    XetDownloadError: Unavailable,
    TRANSPORT: Unavailable,
    OSError: Unavailable,
    # After a failed connection the library closes a client that other threads still use.
    RuntimeError: Unavailable,
    # The answer is not one of a hub: JSONDecodeError is a ValueError.
    **dict.fromkeys(NO_HUB, Unavailable),
}


def _text(error: Exception) -> str:
    if isinstance(error, NO_HUB) and not isinstance(error, HFValidationError):
        return (
            "the answer is not one of a hub; perhaps a proxy or a sign-in page sent it "
            f"({type(error).__name__}: {error})"
        )
    return text_of(error)


def hub_errors(what: str) -> AbstractContextManager[None]:
    """Within the block, raise errors of huggingface_hub as `Rejected` or `Unavailable`.

    `what` is done in the block, and begins the message.
    """
    return translated(what, TABLE, text=_text)
