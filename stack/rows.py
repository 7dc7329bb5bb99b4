"""What is known about a process of the record: its state, memory, and what it waits for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stack.record import ProcessRow, is_running, uptime

HINTS: Final = {
    "not enough memory": "give Weaviate more with WEAVIATE_MEMORY (for instance 6GiB) and start "
    "again, or use a machine that has more",
    "read-only": "Weaviate is read-only while its disk is nearly full: free some space",
    "no space left": "the disk is full: free some space",
}
"""Part of a server's error message -> what the user can do about it."""


def hint(message: str) -> str:
    """What the user can do about it, in brackets; empty if there is only to wait."""
    lowered = message.lower().replace("readonly", "read-only")
    return next((f" ({what})" for part, what in HINTS.items() if part in lowered), "")


def waiting_for(ready_file: Path) -> list[str]:
    """The servers that a process waits for, by its last heartbeat, each with a hint."""
    try:
        lines = ready_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [f"{line}{hint(line)}" for line in lines]


def memory_by_session(proc: Path = Path("/proc")) -> dict[int, int]:
    """Session id -> resident bytes of all its processes. Each process of ours leads a session, so
    this is the memory of a process and its descendants."""
    page, found = os.sysconf("SC_PAGE_SIZE"), dict[int, int]()
    for file in proc.glob("[0-9]*/stat"):
        try:
            # After the program's name in brackets: session is field 6, rss field 24 of proc(5).
            fields = file.read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        session, pages = int(fields[3]), int(fields[21])
        found[session] = found.get(session, 0) + pages * page
    return found


def as_json(row: ProcessRow, run: Path, memory: Mapping[int, int]) -> dict[str, Any]:
    """A process as `status --json` shows it.

    Args:
        row: the process in the record.
        run: the folder of the ready files.
        memory: session id -> resident bytes.
    """
    running = is_running(row)
    pid = row.pid if running else None
    lasting = uptime(row)
    return {
        "name": row.name,
        "state": "gone" if not running and row.pid is not None else row.state,
        "pid": pid,
        "uptime_seconds": None if lasting is None else round(lasting),
        "restarts": row.restarts,
        "memory_bytes": memory.get(pid, 0) if pid else 0,
        "waiting_for": waiting_for(run / f"{row.name}.ready"),
        "log": row.log,
    }
