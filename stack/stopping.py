"""Stopping a stack, and deleting what it stored."""

from __future__ import annotations

from stack import state_folder
from stack.record import RecordFile
from stack.record import stop as stop_recorded
from stack.settings import StackSettings


def down(settings: StackSettings) -> list[str]:
    """Stop the stack of this state folder; see `stack.record.stop`."""
    return stop_recorded(RecordFile(settings.run))


def clean(settings: StackSettings) -> list[str]:
    """Stop the stack and delete everything it stored; the cache and the images stay.

    Returns:
        The names left in the state folder, because they are not the stack's.

    Raises:
        StackError: see `stack.state_folder.empty`.
    """
    down(settings)
    return state_folder.empty(settings.state, settings.image_folders)
