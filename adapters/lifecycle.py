"""What all processes share: stop signals, and running jobs that end together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def call_on_signals(action: Callable[[], object]) -> None:
    """Call `action` in the running event loop at each SIGTERM and SIGINT."""
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, action)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    call_on_signals(stop.set)
    return stop


def exit_on_signals() -> None:
    """Exit with status 0 at SIGTERM and SIGINT, unless a server handles them meanwhile."""

    def end(*_: object) -> None:
        raise SystemExit(0)

    for number in STOP_SIGNALS:
        signal.signal(number, end)


async def run_until_stopped(
    work: Coroutine[Any, Any, None], stop: asyncio.Event, *, seconds: float
) -> None:
    """Run until `work` ends, and raise its error.

    `work` should end by itself once `stop` is set. If it does not within `seconds` it is cancelled,
    since it may be waiting for servers that are down.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await asyncio.wait([working], timeout=seconds)
        if not working.done():
            working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()):
            raise error
    finally:
        stopping.cancel()


async def run_until_first_ends(*jobs: Awaitable[object]) -> None:
    """Run these until the first one ends, then cancel the others; raises the error of the first."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
