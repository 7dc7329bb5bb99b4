"""One computed value, cached for a while and shared by all callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from adapters.errors import Unavailable
from gateway.single_flight import SingleFlight

T = TypeVar("T")

TTL_SECONDS = 2.0
"""Minimum time for which a value is cached."""
TTL_PER_COST = 10.0
"""A value that took t seconds to compute is cached for at least this many times t, so computing it
takes at most a tenth of the time, however often it is requested."""
TIMEOUT_SECONDS = 300.0
"""Time limit for computing a value."""


class TtlCache(Generic[T]):
    """Caches one value; computes it again, once for all callers, after it has expired.

    A caller that is cancelled does not cancel the computation: its result serves the next caller.
    """

    def __init__(self, compute: Callable[[], Awaitable[T]]) -> None:
        self._compute = compute
        self._shared: SingleFlight[None, T] = SingleFlight(finish=True)
        self._value: T | None = None
        self._expires = 0.0

    async def get(self) -> T:
        """The value, computed if none is cached.

        Raises:
            Unavailable: computing it took more than `TIMEOUT_SECONDS`.
            Exception: any error of computing it. Errors are not cached.
        """
        if self._value is not None and time.monotonic() < self._expires:
            return self._value
        return await self._shared.get(None, self._renew)

    async def _renew(self) -> T:
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                value = await self._compute()
        except TimeoutError as error:
            raise Unavailable(f"no answer within {TIMEOUT_SECONDS:g} s") from error
        ended = time.monotonic()
        self._value = value
        self._expires = ended + max(TTL_SECONDS, (ended - started) * TTL_PER_COST)
        return value
