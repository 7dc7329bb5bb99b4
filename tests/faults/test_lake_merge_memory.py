"""The memory of merging files does not grow with their size."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analytics import storage as module
from analytics.lake import Lake
from analytics.storage import Storage


def rows(begin: int, count: int, **more: pa.Array) -> pa.Table:
    numbers = pa.array(range(begin, begin + count), pa.int64())
    texts = pa.array([f"{number:0100}" for number in range(begin, begin + count)], pa.string())
    return pa.table({"offset": numbers, "text": texts, **more})


@pytest.mark.slow
def test_pieces_are_written_as_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 200_000)
    storage = Storage(str(tmp_path))
    before, most = pa.total_allocated_bytes(), 0

    def pieces() -> object:
        nonlocal most
        for begin in range(0, 200_000, 100):
            yield rows(begin, 100)
            most = max(most, pa.total_allocated_bytes() - before)

    schema = rows(0, 0).schema
    assert storage.write_pieces("all.parquet", schema, pieces()) == 200_000  # type: ignore[arg-type]
    assert most < 5_000_000 < 200_000 * 100
    assert storage.read_table("all.parquet") == rows(0, 200_000)


def test_merged_files_hold_all_rows_and_columns_in_order(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    late = pa.array(["x"] * 10)
    last = rows(20, 10, late=late).replace_schema_metadata({"note": "at the end"})
    parts = [rows(0, 0), rows(0, 10), rows(10, 10).replace_schema_metadata({"note": "x"}), last]
    for number, part in enumerate(parts):
        lake.storage.write_table(f"{number}.parquet", part)
    assert lake.merge("merged.parquet", [f"{number}.parquet" for number in range(4)]) == 30
    merged = lake.storage.read_table("merged.parquet")
    assert merged["offset"].to_pylist() == list(range(30))
    assert merged["late"].to_pylist() == [None] * 20 + ["x"] * 10
    assert merged.schema.metadata[b"note"] == b"at the end"
    assert pq.ParquetFile(tmp_path / "merged.parquet").num_row_groups == 1


def test_merging_nothing_but_empty_files_is_an_empty_file(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.storage.write_table("0.parquet", rows(0, 0))
    lake.storage.write_table("1.parquet", rows(0, 0))
    assert lake.merge("merged.parquet", ["0.parquet", "1.parquet"]) == 0
    assert lake.storage.read_table("merged.parquet").schema.names == ["offset", "text"]
