"""Free memory goes back to the system when a process is idle, and not while it works."""

import ctypes
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapters import idle_memory


@pytest.fixture
def returns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When memory was given back."""
    found: list[float] = []
    monkeypatch.setattr(idle_memory, "return_free_memory", lambda: found.append(time.monotonic()))
    return found


def run(monkeypatch: pytest.MonkeyPatch, used: list[float]) -> None:
    """Let the thread's loop see these times of the processor, two for each pass."""
    times = iter(used)
    monkeypatch.setattr(
        idle_memory,
        "time",
        SimpleNamespace(process_time=lambda: next(times), sleep=lambda _: None),
    )
    with pytest.raises(StopIteration):
        idle_memory._run(10.0)


def test_an_idle_process_gives_memory_back(
    monkeypatch: pytest.MonkeyPatch, returns: list[float]
) -> None:
    run(monkeypatch, [5.0, 5.2, 5.2, 5.3])
    assert len(returns) == 2


def test_a_busy_process_keeps_it(monkeypatch: pytest.MonkeyPatch, returns: list[float]) -> None:
    run(monkeypatch, [5.0, 9.0, 9.0, 19.0, 19.0, 19.5])
    assert len(returns) == 1


def test_it_does_not_keep_the_process_alive(returns: list[float]) -> None:
    thread = idle_memory.return_memory_when_idle(3600.0)
    assert thread.daemon
    assert thread in threading.enumerate()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_leaves_the_process() -> None:
    blocks = [bytearray(100_000) for _ in range(1000)]
    kept = blocks[::50]
    del blocks
    before = resident_bytes()
    idle_memory.return_free_memory()
    assert resident_bytes() < before - 50_000_000
    assert len(kept) == 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_c_library_without_trimming_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    idle_memory.return_free_memory()
