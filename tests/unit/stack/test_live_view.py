"""The live table: what it shows, in terminals of different sizes."""

import asyncio
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from stack import launcher, rows
from stack.live_view import LiveView, ProcessLine, Snapshot, duration, in_the_log, render
from stack.settings import StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess, Supervisor

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


ODD = [None, True, -1, 1.5, "many", "\udcff\x1b[31m", [], [1], ["a"], {}, {"a": None}, {"b": [1]}]
"""Values that a gateway or a watcher of another version may give."""


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_an_unexpected_answer_is_shown_or_left_out(value: object) -> None:
    names = ("images", "waiting", "failed", "missing", "model_name", "state", "problem", "known")
    for name in (*names, "sources"):
        shown(replace(NOW, state={"images": 1, name: value}, watcher={name: value}))
        shown(replace(NOW, watcher={"sources": {"nas": {name: value}, "a": value}}))
    shown(replace(NOW, state=dict.fromkeys(names, value), watcher=dict.fromkeys(names, value)))


HOSTILE = "a\udcff\x1b[2J\x1b]0;title\x07\r\n\u202eb"


def test_nothing_from_outside_controls_the_terminal() -> None:
    now = Snapshot(
        HOSTILE,
        [ProcessLine(HOSTILE, "ready")],
        HOSTILE,
        ready=True,
        state={"images": 1, "model_name": HOSTILE, "missing": {HOSTILE: HOSTILE}},
        watcher={"state": HOSTILE, "problem": HOSTILE, "sources": {HOSTILE: {"problem": HOSTILE}}},
        waits=[HOSTILE],
        messages=[HOSTILE],
    )
    text = shown(now, 300, 100)
    text.encode()
    assert all(each.isprintable() for each in text.splitlines())
    assert r"\udcff\x1b[2J" in text


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
async def test_any_error_ends_only_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("stack.live_view.REFRESH_SECONDS", 0.01)

    def broken(*_: object) -> None:
        raise KeyError("a mistake …")

    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, force_terminal=True, width=80, height=24)
    settings = StackSettings(state_dir=tmp_path, gateway_port=9)
    settings.logs.mkdir()
    view = LiveView(settings, console=console)
    monkeypatch.setattr("stack.live_view.render", broken)
    await asyncio.wait_for(view.run({}, lambda: True), 10)
    assert not view.say("printed as a line")
    log = settings.launcher_log.read_text()
    assert "Traceback" in log
    assert "KeyError: 'a mistake …'" in log


async def test_a_terminal_without_a_character_ends_only_the_table(tmp_path: Path) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    console = Console(file=file, force_terminal=True, width=80, height=24)
    settings = StackSettings(state_dir=tmp_path, gateway_port=9)
    settings.logs.mkdir()
    line = ProcessSpec("indexer-…", [], tmp_path / "log", never)
    view = LiveView(settings, console=console)
    processes = {"x": SupervisedProcess(line, ProcessState.READY)}
    await asyncio.wait_for(view.run(processes, lambda: True), 10)
    assert "UnicodeEncodeError" in settings.launcher_log.read_text()


async def test_an_error_of_a_question_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("no such answer")

    monkeypatch.setattr("stack.live_view.REFRESH_SECONDS", 0.01)
    monkeypatch.setattr("stack.questions.get_json", broken)
    settings = StackSettings(state_dir=tmp_path)
    settings.logs.mkdir()
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    await asyncio.wait_for(LiveView(settings, console=console).run({}, lambda: True), 10)
    assert "RuntimeError: no such answer" in settings.launcher_log.read_text()


async def test_without_the_table_the_logs_are_printed_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr("stack.live_view.render", broken)
    monkeypatch.setattr("stack.launcher.FOLLOW_SECONDS", 0.01)
    settings = StackSettings(state_dir=tmp_path, gateway_port=9)
    settings.logs.mkdir()
    log = settings.logs / "watcher.log"
    log.write_text("before\n")
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    started = launcher.Launcher(settings, servers_only=False, follow=True, live=True)
    spec = ProcessSpec("watcher", [], log, never)
    supervisor = Supervisor([], launcher.say, lambda _: None)
    view = LiveView(settings, console=console)
    work = asyncio.ensure_future(started._show_table(view, supervisor, [spec]))
    printed = ""
    async with asyncio.timeout(10):
        while "after" not in printed:
            with log.open("a") as file:
                file.write("after \x1b[2J\n")
            await asyncio.sleep(0.02)
            printed += capsys.readouterr().out
    assert not work.done()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert "before" not in printed
    assert "\x1b" not in printed
    assert "a mistake" in settings.launcher_log.read_text()


def test_a_message_of_the_launcher_is_printable_and_its_failure_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.say(HOSTILE)
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.split("\n"))

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("gone")

    monkeypatch.setattr("sys.stdout", Gone())
    launcher.say("nobody sees this")


def test_memory_counts_a_process_and_its_descendants() -> None:
    session = os.getsid(0)
    assert rows.memory_by_session()[session] > 1_000_000
