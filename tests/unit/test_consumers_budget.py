"""The bound on what pictures being decoded take together."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from consumers.budget import MemoryBudget, return_memory_promptly


def test_what_does_not_fit_waits_and_a_giant_goes_alone() -> None:
    budget, lock = MemoryBudget(100), threading.Lock()
    held: list[int] = []
    most: list[int] = []

    def work(needed: int) -> None:
        with budget.hold(needed):
            with lock:
                held.append(min(needed, 100))
                most.append(sum(held))
            time.sleep(0.005)
            with lock:
                held.remove(min(needed, 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [40, 40, 40, 1000, 10, 90, 500, 30] * 4))
    assert max(most) <= 100
    assert held == []


def test_it_is_given_back_when_decoding_fails() -> None:
    budget = MemoryBudget(10)
    for _ in range(3):
        try:
            with budget.hold(10):
                raise ValueError("damaged")
        except ValueError:
            continue
    with budget.hold(10):
        pass


def test_asking_the_allocator_is_harmless() -> None:
    return_memory_promptly()
    assert len(bytearray(3 << 20)) == 3 << 20
