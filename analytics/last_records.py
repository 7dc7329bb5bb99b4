"""Stores the identities of a file's last records in the file's metadata.

The lake is compared with the log by these. The rows themselves may be missing: they may be in
another file, expired or forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from analytics.storage import Storage

METADATA_KEY: Final = b"last_records"
LAST_RECORDS: Final = 5
"""Number of records to compare with the log; a compacted topic may lack some of them."""


def identity(row: Mapping[str, Any]) -> str:
    """Identifies the record of a row, together with its time."""
    if row["event_id"] is not None:
        return str(row["event_id"])
    return hashlib.sha256(row["raw"] or b"").hexdigest()


def with_last_records(table: pa.Table) -> pa.Table:
    """The table, with the identities of its last records in its metadata.

    They stay when rows expire or are forgotten, as they contain no personal data.
    """
    if not table.num_rows:
        return table
    rows = table.slice(max(0, table.num_rows - LAST_RECORDS))
    rows = rows.select(["offset", "logged_at", "event_id", "raw"]).to_pylist()
    last = [
        [row["offset"], round(row["logged_at"].timestamp() * 1000), identity(row)] for row in rows
    ]
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(last).encode()}
    return table.replace_schema_metadata(metadata)


def last_records(storage: Storage, path: str) -> dict[int, tuple[int, str]]:
    """Offset in the lake -> time in milliseconds and identity, of a file's last records. Blocks."""
    metadata = storage.read_metadata(path)
    if METADATA_KEY not in metadata:
        # A file that was written by an earlier version.
        table = with_last_records(storage.read_table(path))
        metadata = table.schema.metadata or {}
    records = json.loads(metadata.get(METADATA_KEY, b"[]"))
    return {offset: (time_ms, known) for offset, time_ms, known in records}
