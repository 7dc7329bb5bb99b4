"""The live table: what it shows, in terminals of different sizes."""

import asyncio
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from stack import rows
from stack.live_view import LiveView, ProcessLine, Snapshot, duration, in_the_log, render
from stack.settings import StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess

PROCESSES = (
    ProcessLine("kafka", "ready", 300, 412_000_000),
    ProcessLine("triton", "restarting", None, 0, 3),
    ProcessLine("indexer-ViT-B-32__laion2b-s34b-b79k-1", "ready", 7400, 211_000_000),
    *(ProcessLine(name, "ready", 12, 10**8) for name in ("weaviate", "watcher", "gateway")),
)
NOW = Snapshot(
    address="http://127.0.0.1:3000",
    processes=PROCESSES,
    model="lite",
    ready=True,
    state={"images": 1234, "waiting": 66, "failed": 2, "model_name": "lite"},
    watcher={
        "state": "watching",
        "problem": "",
        "known": 1300,
        "sources": {"nas": {"state": "folder missing", "problem": "/mnt/nas is gone", "known": 12}},
    },
    waits=["indexer-1 waits: write vectors: not enough memory"],
    messages=[f"12:00:{second:02} message {second} {'x' * 90}" for second in range(6)],
)


def shown(now: Snapshot, width: int = 80, height: int = 24, *, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=terminal)
    console.print(render(now, console))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_is_in_it(width: int) -> None:
    text = shown(NOW, width)
    for part in (
        "http://127.0.0.1:3000   model lite   0.9 GB of memory",
        "indexed 1,234 of 1,312 pictures, 66 changes to do",
        "94%",
        "indexer-ViT-B-32__laion2b-s34b-b79k-1",
        "source nas: folder missing, /mnt/nas is gone",
        "2 pictures could not be indexed: ./image-search dlq list",
        "not enough memory",
        "message 5",
    ):
        assert part in " ".join(text.split()) or part in text
    (triton,) = [line for line in text.splitlines() if line.startswith("triton")]
    assert triton.split() == ["triton", "restarting", "3"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 24), (120, 50)])
def test_it_fits_into_the_terminal(width: int, height: int) -> None:
    lines = shown(NOW, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_nothing_is_claimed_before_it_is_known() -> None:
    text = shown(Snapshot("http://x", PROCESSES[:1], "lite"))
    assert text.startswith("starting   model lite")
    assert "indexing: not known yet" in text


def test_servers_alone_index_nothing() -> None:
    text = shown(Snapshot("", PROCESSES[:1], "lite", ready=True))
    assert "servers are ready" in text
    assert "index" not in text
    assert "model" not in text


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;31m" in shown(NOW, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(NOW, terminal=True)
    assert "32m" not in shown(NOW, terminal=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (99, "99 s"), (300, "5 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_pictures_of_all_sources_count() -> None:
    assert in_the_log({}) is None
    assert in_the_log({"known": 3, "sources": {"a": {"known": 4}, "b": {}}}) == 7


async def never() -> bool:
    return False


def supervised(name: str, log: Path) -> SupervisedProcess:
    return SupervisedProcess(ProcessSpec(name, [], log, never), ProcessState.READY)


async def test_it_shows_until_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.live_view.REFRESH_SECONDS", 0.05)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24)
    settings = StackSettings(state_dir=tmp_path, gateway_port=9)
    settings.run.mkdir()
    (settings.run / "watcher.json").write_text('{"state": "folder missing", "sources": {}}')
    view = LiveView(settings, console=console)
    assert view.possible
    assert not view.say("nobody sees this")
    processes = {name: supervised(name, tmp_path / "log") for name in ("watcher", "provision")}
    processes["provision"].state = ProcessState.DONE
    work = asyncio.ensure_future(view.run(processes, lambda: True))
    while "watcher: folder missing" not in file.getvalue():
        await asyncio.sleep(0.02)
    assert view.say("watcher was killed by SIGKILL")
    while "killed by SIGKILL" not in file.getvalue():
        await asyncio.sleep(0.02)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert "provision" not in file.getvalue()
    assert not view.say("nobody sees this either")


async def test_a_terminal_that_is_gone_ends_only_the_table(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("gone")

    console = Console(file=Gone(), force_terminal=True, width=80, height=24)
    view = LiveView(StackSettings(state_dir=tmp_path, gateway_port=9), console=console)
    await asyncio.wait_for(view.run({}, lambda: False), 10)


def test_memory_counts_a_process_and_its_descendants() -> None:
    session = os.getsid(0)
    assert rows.memory_by_session()[session] > 1_000_000
