"""Which records a file of the lake ends with, told beside its rows.

By these the lake is held against the log. The rows themselves may not be there: they are in another
file already, have expired, or are forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from analytics.storage import Storage

NOTE: Final = b"last_records"
LAST_RECORDS: Final = 5
"""So many are compared with the log; of a compacted topic some may be gone from it."""


def identity(row: Mapping[str, Any]) -> str:
    """What tells the record of a row from another at its offset, beside its time."""
    if row["event_id"] is not None:
        return str(row["event_id"])
    return hashlib.sha256(row["raw"] or b"").hexdigest()


def with_last_records(table: pa.Table) -> pa.Table:
    """The rows, and beside them which records the last of them are.

    Rows may be left out, expire or be forgotten; this stays, as it tells nothing of anybody.
    """
    if not table.num_rows:
        return table
    rows = table.slice(max(0, table.num_rows - LAST_RECORDS))
    rows = rows.select(["offset", "logged_at", "event_id", "raw"]).to_pylist()
    told = [
        [row["offset"], round(row["logged_at"].timestamp() * 1000), identity(row)] for row in rows
    ]
    notes = {**(table.schema.metadata or {}), NOTE: json.dumps(told).encode()}
    return table.replace_schema_metadata(notes)


def last_records(storage: Storage, path: str) -> dict[int, tuple[int, str]]:
    """Offset in the lake -> time in milliseconds and identity, of a file's last records. Blocks."""
    notes = storage.read_notes(path)
    if NOTE in notes:
        return {offset: (time, told) for offset, time, told in json.loads(notes[NOTE])}
    # A file of an earlier version.
    table = with_last_records(storage.read_table(path))
    told = (table.schema.metadata or {}).get(NOTE, b"[]")
    return {offset: (time, who) for offset, time, who in json.loads(told)}
