"""Processes with all that they have started."""

from __future__ import annotations

import contextlib

import psutil


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and its descendants."""
    return [process, *process.children(recursive=True)]


def proportional_bytes(process: psutil.Process) -> float:
    """What the process and its descendants take now (proportional set size)."""
    total = 0.0
    for each in family(process):
        with contextlib.suppress(psutil.Error):  # It has just ended.
            total += each.memory_full_info().pss
    return total
