"""An error while partitions are given out ends or retries the work; it is never swallowed."""

import ast
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from adapters.log.kafka_group import KafkaGroupReader
from adapters.log.rebalance import RebalanceFailed, Rebalances
from schemas.topics import SEARCHES, Topic
from tests.conftest import ROOT

PLACE = TopicPartition(SEARCHES.name, 0)


class Owner:
    """Fails when it is told to."""

    def __init__(self, *, assigning: BaseException | None, revoking: BaseException | None) -> None:
        self._assigning, self._revoking = assigning, revoking

    async def assigned(
        self, places: Sequence[tuple[Topic, int]]
    ) -> Mapping[tuple[Topic, int], int]:
        if self._assigning is not None:
            raise self._assigning
        return dict.fromkeys(places, 5)

    async def revoked(self, places: Sequence[tuple[Topic, int]]) -> None:
        if self._revoking is not None:
            raise self._revoking


class Consumer:
    """Gives one record a time, wherever it was told to read."""

    def __init__(self) -> None:
        self.position = 0
        self.assigned = {PLACE}

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        self.position += 1
        record = SimpleNamespace(
            partition=0, offset=self.position - 1, key=b"k", value=b"v", timestamp=0
        )
        return {PLACE: [record]}

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.position = offset

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 100)


async def reader(owner: Owner) -> KafkaGroupReader:
    made = KafkaGroupReader("127.0.0.1:9", [SEARCHES], "g", owner)
    made._consumer = Consumer()
    return made


ERRORS = [OSError("disk"), ValueError("bug"), asyncio.CancelledError(), KeyError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_after_a_failed_assignment_nothing_is_read(error: BaseException) -> None:
    made = await reader(Owner(assigning=error, revoking=None))
    await made.on_partitions_revoked([])
    # aiokafka logs what comes out of this, and goes on.
    with pytest.raises(type(error)):
        await made.on_partitions_assigned([PLACE])
    for _ in range(2):
        with pytest.raises(RebalanceFailed):
            await made.read(timeout=0.1, max_records=10)
    with pytest.raises(RebalanceFailed):
        await made.lag()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_after_a_failed_revocation_nothing_is_read(error: BaseException) -> None:
    made = await reader(Owner(assigning=None, revoking=error))
    await made.on_partitions_assigned([PLACE])
    with pytest.raises(type(error)):
        await made.on_partitions_revoked([PLACE])
    with pytest.raises(RebalanceFailed):
        await made.read(timeout=0.1, max_records=10)


async def test_records_of_a_partition_without_a_position_are_not_thrown_away() -> None:
    made = await reader(Owner(assigning=None, revoking=None))
    await made.on_partitions_assigned([PLACE])
    made._next.clear()
    assert await made.lag() == 100
    with pytest.raises(RebalanceFailed, match="read from nowhere"):
        await made.read(timeout=0.1, max_records=10)


@given(st.lists(st.sampled_from(["assign", "revoke", "read", "fail"]), max_size=20))
async def test_nothing_is_skipped_whatever_the_order(steps: list[str]) -> None:
    """Each record from the owner's position on is read once, or reading ends with an error."""
    owner = Owner(assigning=None, revoking=None)
    made = await reader(owner)
    ours, expected = False, 5
    for step in steps:
        if step == "assign":
            await made.on_partitions_revoked([PLACE] if ours else [])
            await made.on_partitions_assigned([PLACE])
            ours, expected = True, 5
        elif step == "revoke":
            await made.on_partitions_revoked([PLACE] if ours else [])
            ours = False
        elif step == "fail":
            owner._assigning = OSError("disk")
            with pytest.raises(OSError, match="disk"):
                await made.on_partitions_assigned([PLACE])
            with pytest.raises(RebalanceFailed):
                await made.read(timeout=0.1, max_records=10)
            return
        else:
            read = await made.read(timeout=0.1, max_records=10)
            for record in read.get((SEARCHES, 0), ()):
                assert ours
                assert record.position.offset == expected
                expected += 1


def test_no_listener_goes_around_it() -> None:
    """Every listener of ours is a `Rebalances`, and none overrides what keeps the errors."""
    for path in ROOT.glob("*/**/*.py"):
        if path.is_relative_to(ROOT / "tests") or ".venv" in path.parts:
            continue
        if path == ROOT / "adapters" / "log" / "rebalance.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = getattr(node, "id", None) or getattr(node, "name", None)
            assert named != "ConsumerRebalanceListener", path
            assert named not in ("on_partitions_assigned", "on_partitions_revoked"), path
    assert issubclass(KafkaGroupReader, Rebalances)
    assert (
        Path(ROOT / "consumers" / "indexing" / "subscriber.py").read_text().count("(Rebalances)")
        == 1
    )
