"""The watcher as a process: signals, logs, end."""

from __future__ import annotations

import asyncio
import logging
import signal
import warnings

from adapters.bootstrap import connect_log
from adapters.logging import configure_logging
from producers.helper_processes import collect_garbage_seldom
from producers.settings import WatcherSettings
from producers.sources import Sources

logger = logging.getLogger(__name__)


async def run(settings: WatcherSettings) -> None:
    """Watch until SIGTERM or SIGINT. SIGHUP compares everything; SIGUSR1 also confirms removals."""
    loop = asyncio.get_running_loop()
    log = connect_log(settings)
    sources = Sources(settings, log, end_process=True)
    if settings.metrics_port:
        # Loaded only where it is used: a restart is short, and imports are a quarter of it.
        from prometheus_client import start_http_server

        from producers.metrics import registry

        start_http_server(settings.metrics_port, registry=registry(sources.statuses))
    work = asyncio.ensure_future(sources.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    loop.add_signal_handler(signal.SIGHUP, sources.request_scan)
    loop.add_signal_handler(signal.SIGUSR1, lambda: sources.request_scan(confirm_removals=True))
    try:
        await work
    except asyncio.CancelledError:
        logger.info("stopped")
    finally:
        await log.close()


def main() -> None:
    """Run with the environment's settings; exit status 0 after a signal to stop."""
    configure_logging()
    collect_garbage_seldom()
    # Its own line repeats ours on dropped events.
    logging.getLogger("watchdog").setLevel(logging.ERROR)
    # A folder that was moved out and in again is watched anew, which it finds worth a warning.
    warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
    asyncio.run(run(WatcherSettings()))
