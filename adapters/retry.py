"""Waiting for an unavailable server, with exponential back-off and jitter: used everywhere.

Every wait is reported to the watchdog (`adapters.progress`), which does not count it as stuck.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from adapters.errors import Unavailable
from adapters.progress import server_is_away

T = TypeVar("T")
logger = logging.getLogger(__name__)


async def until_available(
    call: Callable[[], Awaitable[T]],
    *,
    what: str,
    initial: float = 0.2,
    maximum: float = 5.0,
    give_up_after: float | None = None,
    is_away: Callable[[], Awaitable[bool]] | None = None,
) -> T:
    """The result of the call, which is repeated while it raises `Unavailable`.

    Waits are random between 0 and `initial` x 2^n seconds, at most `maximum` ("full jitter",
    Brooker, "Exponential Backoff And Jitter", 2015).

    `is_away` is called after a failure that this process's own client may have caused. While it
    returns False, the watchdog does not treat the wait as one for a server.

    Raises:
        Unavailable: after `give_up_after` seconds, if given.
    """

    async def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        if is_away is None or await is_away():
            server_is_away(what, str(error), wait)
        logger.warning("%s: retrying in %.1f s: %s", what, wait, error)

    async def attempt() -> T:
        # tenacity awaits only functions that are declared `async`, and a lambda is not.
        return await call()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=initial, max=maximum),
        stop=stop_never if give_up_after is None else stop_after_delay(give_up_after),
        before_sleep=note,
        reraise=True,
    )
    return await retrying(attempt)
