"""A consumer as a process: stop signals, the watchdog, and running jobs that end together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any

from adapters.progress import Activity, Watchdog


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


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


def build_watchdog(
    activity: Activity, *, stuck_seconds: float, ready_file: Path | None
) -> Watchdog:
    """The watchdog of a process with one activity; it ends the process when that is stuck."""
    return Watchdog(
        [activity], stuck_seconds=stuck_seconds, ready_file=ready_file, end_process=True
    )
