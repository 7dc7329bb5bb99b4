"""What a model switch needs from the local stack: implements `models.switching.ModelServing`."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from models.errors import ServingFailed
from stack import triton_models
from stack.install.preparation import Cache
from stack.processes import indexers
from stack.record import RecordFile, find
from stack.settings import StackSettings

STOP_SECONDS: Final = 90.0


class LocalServing:
    """The launcher's processes and Triton's models, on this machine."""

    def __init__(self, settings: StackSettings, cache: Cache) -> None:
        self._settings = settings
        self._cache = cache

    def check_running(self) -> None:
        """Return if a launcher is running, which starts the indexers of a model.

        Raises:
            ServingFailed: no launcher is running.
        """
        if not RecordFile(self._settings.run).launcher_runs():
            raise ServingFailed("nothing is running here; start it with './image-search up'")

    async def load(self, name: str) -> None:
        """See `stack.triton_models.load`."""
        await triton_models.load(self._settings, name, self._cache)

    async def unload(self, name: str) -> None:
        """See `stack.triton_models.unload`."""
        await triton_models.unload(self._settings, name)

    async def wait_for_indexers_to_stop(self, name: str) -> None:
        """Return once the launcher has stopped all indexers of a model.

        Raises:
            ServingFailed: some are still running after `STOP_SECONDS`.
        """
        names = {spec.name for spec in indexers(self._settings, name)}
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            record = RecordFile(self._settings.run).read()
            rows = record.processes if record else []
            running = [row.name for row in rows if row.name in names and find(row) is not None]
            if not running:
                return
            if time.monotonic() > deadline:
                raise ServingFailed(f"still running: {', '.join(running)}; repeat the command")
            await asyncio.sleep(0.2)
