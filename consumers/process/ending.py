"""How work in the background ends: with its first error, which somebody waits for."""

from __future__ import annotations

import asyncio


class EndsWithError:
    """Work whose first error is kept in `failed`. Made within a running event loop."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the first error that ends the work."""

    def fail(self, error: BaseException) -> None:
        """End with this error, unless there was one before it."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """A task's `add_done_callback`: its error is the work's."""
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)
