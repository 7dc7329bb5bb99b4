"""Background work that ends with its first error, set on a future that its owner awaits."""

from __future__ import annotations

import asyncio


class BackgroundWork:
    """Work whose first error is set on `failed`. Create it within a running event loop."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Receives the first error that ends the work."""

    def fail(self, error: BaseException) -> None:
        """End with this error, unless there was an earlier one."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Pass this to a task's `add_done_callback`: its error ends the work."""
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)
