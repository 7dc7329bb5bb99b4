"""Every write to the lake leaves out rows that are forgotten meanwhile."""

from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest

from analytics.compaction import Sweep, forget
from analytics.lake import ForgetRequest, Lake, LakePartition, PartitionEnd
from schemas.topics import SEARCHES
from tests.support.lake_events import Events, records, table

PARTITION = LakePartition("searches", 0)


@pytest.fixture
def url() -> Iterator[str]:
    """A place on an object store, which has no locks."""
    name = f"lake-{uuid4().hex}"
    yield f"memory://{name}"
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def held(url: str) -> list[str]:
    found: list[str] = table(Lake(url), SEARCHES)["search_id"].to_pylist()
    return found


def one_file(url: str) -> list[str]:
    lake = Lake(url)
    made = records(Events(1).messages("searches", 10))
    lake.current().append(SEARCHES, PARTITION, PartitionEnd(), made)
    return held(url)


def before_writing(lake: Lake, do: Callable[[], object]) -> None:
    """Do this once, when rows were read and are about to be written."""
    write = lake.storage.write_pieces
    left = [do]

    def writing(relative: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
        if relative.rpartition("/")[2].startswith("searches-") and left:
            left.pop()()
        return write(relative, schema, pieces)

    lake.storage.write_pieces = writing  # type: ignore[method-assign]


def test_concurrent_forgetting_does_not_undo_each_other(url: str) -> None:
    names = one_file(url)
    slow, other = Lake(url), Lake(url)

    def meanwhile() -> None:
        forget(other, ForgetRequest(frozenset({names[7]})))
        Sweep(other).run()

    before_writing(slow, meanwhile)
    forget(slow, ForgetRequest(frozenset({names[2]})))
    assert held(url) == [name for name in names if name not in (names[2], names[7])]


def test_a_sweep_does_not_undo_forgetting(url: str) -> None:
    names = one_file(url)
    slow, other = Lake(url), Lake(url)
    slow.add_forget_request(ForgetRequest(frozenset({names[2]})))
    before_writing(slow, lambda: forget(other, ForgetRequest(frozenset({names[7]}))))
    Sweep(slow).run()
    assert held(url) == [name for name in names if name not in (names[2], names[7])]


def test_a_writer_does_not_store_events_forgotten_during_the_write(url: str) -> None:
    made = records(Events(1).messages("searches", 10))
    names = [record.key.decode() for record in made if record.key is not None]
    slow, other = Lake(url), Lake(url)
    slow.current()
    before_writing(slow, lambda: forget(other, ForgetRequest(frozenset({names[4]}))))
    slow.current().append(SEARCHES, PARTITION, PartitionEnd(), made)
    assert held(url) == [name for name in names if name != names[4]]
