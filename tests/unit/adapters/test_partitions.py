"""Keys go to the partitions that Kafka's clients would put them in."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from adapters.log.partitions import partitions_of


@pytest.mark.slow
@given(keys=st.lists(st.binary(max_size=70), max_size=40), count=st.integers(1, 50))
def test_partitions_of_many_keys_equal_those_of_single_keys(keys: list[bytes], count: int) -> None:
    everything = list(range(count))
    one_by_one = DefaultPartitioner()
    assert partitions_of(keys, count) == [one_by_one(key, everything, everything) for key in keys]


@pytest.mark.parametrize(
    ("key", "hashed"),
    # From the tests of Kafka's own Java client (UtilsTest.testMurmur2).
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partitions_equal_those_of_kafkas_java_client(key: bytes, hashed: int) -> None:
    for count in (1, 7, 12, 1000):
        assert partitions_of([key], count) == [(hashed & 0x7FFFFFFF) % count]
