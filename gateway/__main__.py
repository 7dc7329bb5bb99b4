"""`python -m gateway`: serve HTTP until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc

import uvicorn
import uvloop

from adapters.bootstrap import Connections, connections
from adapters.idle_memory import return_memory_when_idle
from adapters.index.port import Collection
from adapters.lifecycle import exit_on_signals
from adapters.logging import configure_logging
from adapters.progress import Activity, Watchdog
from adapters.settings import exit_on_bad_settings
from gateway.app import create_app
from gateway.settings import GatewaySettings
from schemas.topics import IMAGES

GRACE_SECONDS = 10
GARBAGE_THRESHOLD = 20_000
"""How many new containers start a garbage collection; Python's default is 700."""


async def serve(settings: GatewaySettings) -> None:
    """Serve until a signal to stop. The health check reports servers that are down."""
    async with connections(settings) as servers:
        await _serve_app(settings, servers)


async def _serve_app(settings: GatewaySettings, servers: Connections) -> None:
    async def backlog(collection: Collection) -> int:
        return (await servers.groups.progress(IMAGES, collection.group)).lag

    app = create_app(settings, servers.embedder, servers.index, servers.log, backlog)
    config = uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    # What exists now lives as long as the process; scanning it for garbage would delay answers.
    # Requests create few cycles, so these are collected less often, too.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 50, 100)
    await _serve_watched(uvicorn.Server(config), settings, app.state.activities)


async def _serve_watched(
    server: uvicorn.Server, settings: GatewaySettings, activities: list[Activity]
) -> None:
    """Serve until a signal to stop, or until the watchdog finds the background work stuck."""
    watchdog = Watchdog(activities, stuck_seconds=settings.stuck_seconds, end_process=True)
    watching = asyncio.create_task(watchdog.run())

    def end(_: object) -> None:
        server.should_exit = True

    watching.add_done_callback(end)
    try:
        await server.serve()
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def main() -> None:
    """Serve with the settings of the environment. A signal to stop ends it with status 0."""
    configure_logging()
    return_memory_when_idle()
    # uvicorn handles these while it serves, then raises them again. The default handlers would
    # then kill the process before its connections are closed.
    exit_on_signals()
    settings = GatewaySettings()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    with exit_on_bad_settings():
        main()
