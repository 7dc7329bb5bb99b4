"""Settings for clients of the stack's servers."""

from __future__ import annotations

import json
from typing import Any

from adapters.settings import ServerSettings
from stack.settings import StackSettings


def server_settings() -> ServerSettings:
    """The servers that the environment names, else those of the local stack."""
    return StackSettings().server_settings()


def watcher_status(stack: StackSettings) -> dict[str, Any]:
    """The watcher's last status; empty if it was never started."""
    try:
        status: dict[str, Any] = json.loads(stack.watcher_status.read_text())
    except FileNotFoundError:
        return {}
    return status
