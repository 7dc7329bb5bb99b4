"""`python -m gateway`: serve HTTP until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import signal

import uvicorn
import uvloop

from adapters.bootstrap import connect_embedder, connect_index, connect_log, group_progress
from adapters.index.port import Collection
from adapters.logging import configure_logging
from adapters.progress import Activity, Watchdog
from adapters.settings import told_briefly
from gateway.app import create_app
from gateway.settings import GatewaySettings
from schemas.topics import IMAGES

GRACE_SECONDS = 10
GARBAGE_THRESHOLD = 20_000
"""So many new containers start a collection; Python's own threshold is 700."""


async def serve(settings: GatewaySettings) -> None:
    """Serve; the servers behind may come and go, the health check says so."""
    embedder = connect_embedder(settings)
    index = connect_index(settings)
    log = connect_log(settings)

    async def backlog(collection: Collection) -> int:
        return (await group_progress(settings, IMAGES, collection.group)).lag

    app = create_app(settings, embedder, index, log, backlog)
    config = uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    # What is there now stays; looking through it for garbage again and again delays answers.
    # What a request leaves behind is freed at once, so new cycles are looked for less often, too.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 50, 100)
    try:
        await _serve_watched(uvicorn.Server(config), settings, app.state.activities)
    finally:
        await asyncio.gather(embedder.close(), index.close(), log.close())


async def _serve_watched(
    server: uvicorn.Server, settings: GatewaySettings, activities: list[Activity]
) -> None:
    """Serve until a signal comes, or until work in the background is stuck, which is an error."""
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


def _end(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Serve with the environment's settings; a signal to stop ends it with status 0."""
    configure_logging()
    # The server handles these while it serves, then raises them again, for whom it may concern.
    # By default that would kill the process before its connections are closed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    settings = GatewaySettings()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    with told_briefly():
        main()
