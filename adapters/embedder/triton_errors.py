"""The errors of Triton's client as errors of `adapters.errors`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import aiohttp
from tritonclient.utils import InferenceServerException

from adapters.errors import AdapterError, ErrorTable, Rejected, Unavailable, text_of, translated

_REFUSED: Final = "400"
"""Triton's status both for a bad tensor and for a model that is not loaded."""
_TEMPORARY: Final = ("unknown model", "not ready", "unavailable", "no version", "failed to restart")


def _by_answer(error: InferenceServerException) -> type[AdapterError]:
    message = error.message() or ""
    temporary = any(each in message for each in _TEMPORARY) or "stub process" in message.lower()
    refused = str(error.status() or "") == _REFUSED and not temporary
    return Rejected if refused else Unavailable


TABLE: Final[ErrorTable] = {
    InferenceServerException: _by_answer,
    aiohttp.ClientError: Unavailable,
    # Of sockets, TLS and time limits.
    OSError: Unavailable,
}


def triton_errors(
    what: str, *, answered: type[AdapterError] | None = None
) -> AbstractContextManager[None]:
    """Within the block, raise errors of Triton's client as `Rejected` or `Unavailable`.

    `what` is done in the block, and begins the message. `answered` is raised for every error that
    Triton itself returns; by default its status and message decide.
    """
    table = TABLE if answered is None else {**TABLE, InferenceServerException: answered}
    return translated(what, table, text=_text)


def _text(error: Exception) -> str:
    """Without the status, which `str` puts in front."""
    said = error.message() if isinstance(error, InferenceServerException) else None
    return said or text_of(error)
