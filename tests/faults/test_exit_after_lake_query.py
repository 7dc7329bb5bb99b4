"""A command that has queried the lake exits with its own status."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analytics.storage import Storage


@pytest.mark.parametrize("where", ["on disk", "in an object store"])
def test_arrow_threads_hold_no_python_object(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does may end a process by SIGABRT (one in ten, with many columns)."""
    rows = pa.table({"a": ["x", "y"], "b": [1, 2]})
    storage = Storage(str(tmp_path) if where == "on disk" else f"memory:/{tmp_path}")
    storage.write_table("file.parquet", rows)
    given: list[Any] = []
    opened = pq.ParquetFile

    def reported(source: Any) -> pq.ParquetFile:
        given.append(source)
        return opened(source)

    monkeypatch.setattr("analytics.storage.pq.ParquetFile", reported)
    assert storage.read_table("file.parquet") == rows
    assert storage.read_table("file.parquet", ["b"]) == rows.select(["b"])
    assert b"ARROW:schema" not in storage.read_metadata("file.parquet")
    assert [type(each) for each in given] == [
        pa.OSFile if where == "on disk" else pa.BufferReader
    ] * 3
    with pytest.raises(FileNotFoundError):
        storage.read_table("none.parquet")
