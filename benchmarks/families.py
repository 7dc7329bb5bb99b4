"""Processes together with their descendants."""

from __future__ import annotations

import contextlib

import psutil


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and its descendants."""
    return [process, *process.children(recursive=True)]


def proportional_bytes(process: psutil.Process) -> float:
    """Memory of the process and its descendants (proportional set size)."""
    total = 0.0
    for each in family(process):
        with contextlib.suppress(psutil.Error):  # It has just ended.
            total += each.memory_full_info().pss
    return total
