"""A model's session keeps the memory of its batches while it works, and returns it when idle."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.triton_models import give_backend

FILE = Path(__file__).parents[3] / "triton_models" / "lite_image" / "1" / "onnx_session.py"
SHRINKAGE = "memory.enable_memory_arena_shrinkage"


class RecordedSession:
    """As much of ONNX Runtime's session as a model uses; records its runs."""

    def __init__(self, rows: int | str = "N") -> None:
        self.rows = rows
        self.runs: list[tuple[int, str | None]] = []
        self.fails = False

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="X", shape=[self.rows, 2])]

    def run(self, _: list[str], feeds: dict[str, Any], options: Any = None) -> list[Any]:
        shrinkage = options.get_run_config_entry(SHRINKAGE) if options else None
        self.runs.append((len(feeds["X"]), shrinkage))
        if shrinkage and self.fails:
            raise RuntimeError("no arena")
        return [feeds["X"] * 2]

    @property
    def shrinks(self) -> int:
        return sum(shrinkage is not None for _, shrinkage in self.runs)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    give_backend(monkeypatch)
    spec = importlib.util.spec_from_file_location("onnx_session_of_test", FILE)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def batch(rows: int) -> dict[str, Any]:
    return {"X": np.ones((rows, 2), np.float32)}


@pytest.mark.slow
def test_memory_is_returned_once_after_the_work(module: Any) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, 0.05)
    assert session.run(batch(32)).shape == (32, 2)
    wait_until(lambda: recorded.shrinks == 1)
    assert recorded.runs == [(32, None), (1, "cpu:0")]  # One row is run again, to shrink.
    time.sleep(0.3)
    assert recorded.shrinks == 1
    session.run(batch(3))
    wait_until(lambda: recorded.shrinks == 2)
    session.close()


def test_memory_is_kept_while_batches_come(module: Any) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, 5.0)
    for _ in range(20):
        session.run(batch(2))
    assert recorded.shrinks == 0
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 2  # It does not wait for the end of the idle time.


@pytest.mark.slow
def test_single_rows_neither_delay_nor_cause_the_return(module: Any) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, 0.2)
    session.run(batch(1))
    time.sleep(0.4)
    assert recorded.shrinks == 0
    session.run(batch(2))
    deadline = time.monotonic() + 10
    while recorded.shrinks == 0 and time.monotonic() < deadline:
        session.run(batch(1))  # A health check.
        time.sleep(0.02)
    session.close()
    assert recorded.shrinks == 1


def test_a_session_without_idle_time_keeps_its_memory(module: Any) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, 0.0)
    session.run(batch(2))
    time.sleep(0.1)
    session.close()
    assert recorded.runs == [(2, None)]


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12])
def test_an_idle_time_without_end_is_waited_for(module: Any, seconds: float) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, seconds)
    session.run(batch(2))
    time.sleep(0.1)
    assert session._thread.is_alive()
    session.close()
    assert recorded.runs == [(2, None)]


def test_nothing_is_run_before_the_first_batch(module: Any) -> None:
    recorded = RecordedSession()
    session = module.Session(recorded, 0.01)
    time.sleep(0.1)
    session.close()
    assert recorded.runs == []


def test_a_failure_to_return_memory_does_not_stop_answers(module: Any) -> None:
    recorded = RecordedSession()
    recorded.fails = True
    session = module.Session(recorded, 0.01)
    session.run(batch(2))
    wait_until(lambda: recorded.shrinks == 1)
    assert session.run(batch(4)).shape == (4, 2)
    session.close()


def test_a_graph_for_one_row_is_run_row_by_row(module: Any) -> None:
    recorded = RecordedSession(rows=1)
    session = module.Session(recorded, 0.05)
    assert session.run(batch(3)).tolist() == [[2, 2]] * 3
    wait_until(lambda: recorded.shrinks == 1)
    assert [rows for rows, _ in recorded.runs] == [1, 1, 1, 1]
    session.close()


def test_a_c_library_without_trimming_is_no_error(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: SimpleNamespace())
    module.trim_heap()
