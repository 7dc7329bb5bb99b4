"""The errors of Weaviate's client as errors of `adapters.errors`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import httpx
from weaviate.exceptions import WeaviateBaseError

from adapters.errors import ErrorTable, Unavailable, translated

TABLE: Final[ErrorTable] = {
    # Weaviate refuses single objects in its answers (`adapters.index.writes`), not with these.
    WeaviateBaseError: Unavailable,
    httpx.HTTPError: Unavailable,
    # Of sockets, TLS and time limits.
    OSError: Unavailable,
}


def weaviate_errors(what: str) -> AbstractContextManager[None]:
    """Within the block, raise errors of Weaviate's client as `Unavailable`.

    `what` is done in the block, and begins the message.
    """
    return translated(what, TABLE)
