"""Settings for clients of the stack's servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stack.settings import StackSettings

if TYPE_CHECKING:
    from adapters.settings import ServerSettings


def server_settings() -> ServerSettings:
    """The servers that the environment names, else those of the local stack."""
    return StackSettings().server_settings()


def watcher_status(stack: StackSettings) -> dict[str, Any]:
    """The watcher's last status; empty if it was never started, or if the file holds no status."""
    try:
        status = json.loads(stack.watcher_status.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
