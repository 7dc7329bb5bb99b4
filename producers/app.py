"""The watcher process: signals, logging and shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import warnings

from adapters.bootstrap import connect_log
from adapters.helper_processes import collect_garbage_seldom
from adapters.idle_memory import return_memory_when_idle
from adapters.lifecycle import call_on_signals
from adapters.logging import configure_logging
from producers.settings import WatcherSettings
from producers.sources import Sources

logger = logging.getLogger(__name__)


async def watch(settings: WatcherSettings) -> None:
    """Watch until SIGTERM or SIGINT. SIGHUP compares everything; SIGUSR1 also confirms removals."""
    loop = asyncio.get_running_loop()
    log = connect_log(settings)
    sources = Sources(settings, log, end_process=True)
    if settings.metrics_port:
        # Imported only if needed: imports take a quarter of the time of a restart.
        from prometheus_client import start_http_server

        from producers.metrics import registry

        start_http_server(settings.metrics_port, registry=registry(sources.statuses))
    work = asyncio.ensure_future(sources.run())
    call_on_signals(work.cancel)
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
    return_memory_when_idle()
    # watchdog also logs dropped events, which the watcher logs itself.
    logging.getLogger("watchdog").setLevel(logging.ERROR)
    # watchdog warns when a folder that was moved out and back in is watched again.
    warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
    asyncio.run(watch(WatcherSettings()))
