"""The bound on what pictures being decoded take together."""

import asyncio

import pytest

from imaging.sandbox.allocator import return_memory_promptly
from imaging.sandbox.memory_budget import MemoryBudget


async def test_an_image_waits_for_memory_and_a_giant_is_decoded_alone() -> None:
    budget = MemoryBudget(100)
    most = 0

    async def work(needed: int) -> None:
        nonlocal most
        with await budget.take(needed) as hold:
            most = max(most, budget.used)
            assert hold.bytes == min(needed, 100)
            await asyncio.sleep(0.005)

    await asyncio.gather(*map(work, [40, 40, 40, 1000, 10, 90, 500, 30] * 4))
    assert 90 < most <= 100
    assert budget.used == 0


async def test_memory_is_released_once_when_decoding_fails() -> None:
    budget = MemoryBudget(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), await budget.take(10):
            raise ValueError("damaged")
    hold = await budget.take(4)
    hold.give_back()
    hold.give_back()
    assert budget.used == 0


async def test_a_cancelled_waiter_takes_no_memory_and_blocks_nobody() -> None:
    budget = MemoryBudget(10)
    first = await budget.take(6)
    large = asyncio.create_task(budget.take(10))
    small = asyncio.create_task(budget.take(4))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    held = await small
    assert budget.used == 10
    waiting = asyncio.create_task(budget.take(5))
    await asyncio.sleep(0)
    first.give_back()
    waiting.cancel()
    await asyncio.gather(large, waiting, return_exceptions=True)
    assert budget.used == 4
    held.give_back()
    assert budget.used == 0


async def test_a_waiter_cancelled_at_its_turn_is_skipped() -> None:
    budget = MemoryBudget(10)
    first = await budget.take(10)
    waiting = [asyncio.create_task(budget.take(6)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    first.give_back()
    (await waiting[1]).give_back()
    (await waiting[2]).give_back()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert waiting[0].cancelled()
    assert budget.used == 0


def test_releasing_memory_to_the_system_is_harmless() -> None:
    return_memory_promptly()
    assert len(bytearray(3 << 20)) == 3 << 20
