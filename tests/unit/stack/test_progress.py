"""What is shown while the servers are prepared, and how their preparation ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from stack import processes
from stack.errors import StackError
from stack.install.preparation import Cache, run
from stack.install.progress import Bars, Lines, remaining, shown
from stack.settings import ROOT, StackSettings

COUNTS = "import time\nfor n in range(100): print(n, flush=True); time.sleep(0.02)"


@pytest.mark.slow
def test_lines_say_how_far_a_command_is() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.interval = 0.3
    with lines.step("the tool"):
        run([sys.executable, "-c", COUNTS], lines, "building the tool", expected_lines=100)
    assert said[0] == "preparing the tool"
    assert said[-1].startswith("prepared the tool in ")
    reports = said[1:-1]
    assert reports
    assert all("building the tool" in each and "about" in each for each in reports)
    assert any("s left" in each for each in reports)


def test_a_command_of_unknown_length_has_no_share() -> None:
    said: list[str] = []
    Lines(said.append).update("building", 30, None, "")
    assert said == ["  … building, 30 s"]


@pytest.mark.parametrize(
    ("seconds", "share", "text"),
    [(10, 0.01, ""), (50, 0.5, ", 50 s left"), (60, 0.1, ", 9 min left"), (9, 0.99, ", 0 s left")],
)
def test_what_is_left(seconds: float, share: float, text: str) -> None:
    assert remaining(seconds, share) == text


def test_bars_show_each_step_of_each_thread() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)

    def steps(name: str) -> None:
        with bars.step(name):
            bars.update("building", 10, 0.5, "")
            with bars.step(f"part of {name}"):
                bars.update("fetching", 1, None, "")

    with Bars(console) as bars:
        threads = [threading.Thread(target=steps, args=(name,)) for name in ("Kafka", "Weaviate")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("Kafka", "part of Kafka", "Weaviate", "part of Weaviate"):
        assert name in written.getvalue()
    assert written.getvalue().count("100%") >= 4


@pytest.mark.parametrize(("term", "kind"), [("dumb", Lines), ("xterm", Bars)])
def test_bars_need_a_terminal_that_moves_its_cursor(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type[Lines]
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stdout", Terminal())
    with shown(lambda _: None) as progress:
        assert type(progress) is kind


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_without_a_character_still_shows_the_line() -> None:
    program = (
        "from stack.install.progress import shown\n"
        "with shown(print) as progress: progress.update('building ✓', 30, None, '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"  ? building ?, 30 s\n", done.stderr


def test_a_step_that_fails_is_not_shown_as_done() -> None:
    said: list[str] = []
    with pytest.raises(StackError), Lines(said.append).step("the tool"):
        raise StackError
    assert said == ["preparing the tool"]


@pytest.mark.slow
def test_stopping_ends_a_running_command() -> None:
    lines = Lines(lambda _: None)
    threading.Timer(0.3, lines.stop).start()
    started = time.monotonic()
    with pytest.raises(StackError, match="was interrupted"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], lines, "waiting")
    assert time.monotonic() - started < 30


def test_one_server_that_cannot_be_prepared_ends_the_preparation_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lasting(settings: StackSettings, cache: Cache) -> None:
        run([sys.executable, "-c", "import time; time.sleep(60)"], cache.progress, "compiling")

    def failing(settings: StackSettings, cache: Cache) -> None:
        raise StackError("no jars")

    monkeypatch.setattr(processes, "weaviate", lasting)
    monkeypatch.setattr(processes, "triton", lasting)
    monkeypatch.setattr(processes, "kafka", failing)
    started = time.monotonic()
    with pytest.raises(StackError, match="no jars"):
        processes.servers(StackSettings(), Cache(tmp_path, lambda _: None))
    assert time.monotonic() - started < 30
