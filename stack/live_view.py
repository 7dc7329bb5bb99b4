"""The live table of `up` in a terminal: processes, indexing, and what went wrong lately."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stack import questions, rows
from stack.install.standard_output import printable
from stack.settings import StackSettings
from stack.supervisor import SupervisedProcess

REFRESH_SECONDS: Final = 1.0
ASK_SECONDS: Final = 2.0
"""Seconds between two questions to the gateway."""
ASK_TIMEOUT_SECONDS: Final = 5.0
MESSAGES: Final = 6
"""Number of the launcher's last messages that are shown."""
MARGIN: Final = 4
"""Lines for the last line, those between, and one that wraps."""
STYLES: Final = {
    "ready": "green",
    "waiting": "dim",
    "starting": "yellow",
    "restarting": "bold red",
    "stopped": "dim",
}
"""State of a process -> its style."""
BAR_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """One process in the table; `up` in seconds, `memory` in bytes."""

    name: str
    state: str
    up: float | None = None
    memory: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the view shows at one moment."""

    address: str
    """The page's; empty if there is no gateway."""
    processes: Sequence[ProcessLine]
    model: str
    ready: bool = False
    state: Mapping[str, Any] = field(default_factory=dict)
    """The gateway's state or health; empty if it does not answer yet."""
    watcher: Mapping[str, Any] = field(default_factory=dict)
    waits: Sequence[str] = ()
    """What processes of ours wait for, one line for each."""
    messages: Sequence[str] = ()
    """The launcher's last messages, oldest first."""


def render(now: Snapshot, console: Console) -> RenderableType:
    """The view: processes, indexing, and what went wrong; as many messages as the console fits."""
    parts: list[RenderableType] = [_head(now), Text(), _processes(now.processes), Text()]
    if now.address:
        parts.append(_indexing(now))
    problems = [Text(printable(each), style="yellow") for each in _problems(now)]
    used = len(parts) + len(now.processes) + sum(_lines(each, console) for each in problems)
    messages = [Text(printable(each), style="dim") for each in now.messages]
    parts += [*problems, Text(), *_newest(messages, console, console.height - used - MARGIN)]
    parts.append(Text("Ctrl-C stops it; ./image-search logs shows what the processes log", "dim"))
    return Group(*parts)


def _lines(text: Text, console: Console) -> int:
    return len(text.wrap(console, console.width))


def _newest(messages: Sequence[Text], console: Console, lines: int) -> list[Text]:
    """As many of the newest messages as fit into this number of lines, at least one."""
    shown: list[Text] = []
    for each in reversed(messages):
        lines -= _lines(each, console)
        if shown and lines < 0:
            break
        shown.insert(0, each)
    return shown


def _head(now: Snapshot) -> Text:
    text = Text()
    if now.ready:
        text.append(printable(now.address) or "servers are ready", "bold green")
    else:
        text.append("starting", "yellow")
    if now.address:
        text.append(printable(f"   model {now.state.get('model_name') or now.model}"))
    if total := sum(each.memory for each in now.processes):
        text.append(f"   {total / 1e9:.1f} GB of memory")
    return text


def _processes(processes: Sequence[ProcessLine]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("process", no_wrap=True, overflow="ellipsis")
    table.add_column("state", no_wrap=True)
    for column in ("up", "memory", "restarts"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in processes:
        table.add_row(
            Text(printable(each.name)),
            Text(each.state, STYLES.get(each.state, "")),
            "" if each.up is None else duration(each.up),
            f"{each.memory / 1e6:.0f} MB" if each.memory else "",
            Text(str(each.restarts), "bold red" if each.restarts else "dim"),
        )
    return table


def duration(seconds: float) -> str:
    """A duration as `5 s`, `3 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def in_the_log(watcher: Mapping[str, Any]) -> int | None:
    """Pictures of all sources that the log holds, by the watcher; None if it has not said so."""
    known = [_number(each, "known") for each in (watcher, *_sources(watcher).values())]
    counts = [each for each in known if each is not None]
    return sum(counts) if counts else None


def _sources(watcher: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {name: _object(each) for name, each in _object(watcher.get("sources")).items()}


def _object(value: object) -> Mapping[str, Any]:
    """A JSON object; an empty one for what is none, for instance from another version."""
    return value if isinstance(value, Mapping) else {}


def _number(of: Mapping[str, Any], name: str) -> int | None:
    """A count; None for what is none."""
    value = of.get(name)
    return value if type(value) is int and value >= 0 else None


def _indexing(now: Snapshot) -> RenderableType:
    images, known = _number(now.state, "images"), in_the_log(now.watcher)
    if images is None:
        return Text("indexing: not known yet", "dim")
    text = Text(f"indexed {images:,}" + (f" of {known:,} pictures" if known else " pictures"))
    if waiting := _number(now.state, "waiting"):
        text.append(f", {waiting:,} {'change' if waiting == 1 else 'changes'} to do", "yellow")
    elif waiting == 0:
        text.append(", up to date", "green")
    line = Table.grid(padding=(0, 2, 0, 0))
    if known:
        done = min(images, known) / known
        bar = ProgressBar(total=1.0, completed=done, width=BAR_WIDTH)
        line.add_row(bar, Text(f"{done:.0%}"), text)
    else:
        line.add_row(text)
    return line


def _problems(now: Snapshot) -> list[str]:
    found = [*now.waits]
    for name, each in {"watcher": now.watcher, **_sources(now.watcher)}.items():
        if each and (each.get("problem") or each.get("state") not in ("watching", None)):
            what = name if each is now.watcher else f"source {name}"
            state = [str(text) for text in (each.get("state"), each.get("problem")) if text]
            found.append(f"{what}: {', '.join(state)}")
    if failed := _number(now.state, "failed"):
        pictures = "picture" if failed == 1 else "pictures"
        found.append(f"{failed:,} {pictures} could not be indexed: ./image-search dlq list")
    for part, why in _object(now.state.get("missing")).items():
        found.append(f"{part}: {why}")
    return found


class LiveView:
    """Shows the processes of a launcher until it is cancelled."""

    def __init__(
        self, settings: StackSettings, *, gateway: bool = True, console: Console | None = None
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._console = console or Console()
        self._messages: deque[str] = deque(maxlen=MESSAGES)
        self._running = False
        self._state: Mapping[str, Any] = {}

    @property
    def possible(self) -> bool:
        """Whether the terminal can replace what was printed."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def say(self, text: str) -> bool:
        """Show a message below the table; False if there is no table now."""
        if self._running:
            self._messages.append(f"{time.strftime('%H:%M:%S')} {text}")
        return self._running

    async def run(
        self, processes: Mapping[str, SupervisedProcess], ready: Callable[[], bool]
    ) -> None:
        """Show the processes until cancelled, or until the table cannot be shown, for instance
        because the terminal is gone. The reason is then in the launcher's log."""
        asking = asyncio.ensure_future(self._keep_asking()) if self._gateway else None
        # Whatever is printed meanwhile appears above the table, which disappears at the end.
        live = Live(console=self._console, auto_refresh=False, transient=True)
        try:
            with live:
                self._running = True
                try:
                    while True:
                        if asking is not None and asking.done():
                            asking.result()  # It ends only by an error.
                        shown = [each for each in processes.values() if each.state != "done"]
                        now = await asyncio.to_thread(self._snapshot, shown, ready())
                        live.update(render(now, self._console), refresh=True)
                        await asyncio.sleep(REFRESH_SECONDS)
                except Exception:
                    live.update(Text())  # The end draws it once more.
                    raise
        except Exception as error:  # Whatever it is: the processes matter more than their table.
            self._running = False
            self._report(error)
        finally:
            self._running = False
            if asking is not None:
                asking.cancel()

    def _report(self, error: Exception) -> None:
        """Say why there is no table any more; a failed terminal does not show that either."""
        with suppress(OSError), self._settings.launcher_log.open("a", errors="replace") as log:
            log.write(f"{time.strftime('%H:%M:%S')} the table cannot be shown any more\n")
            traceback.print_exception(error, file=log)
        with suppress(OSError, UnicodeError):
            what = printable(str(error)) or type(error).__name__
            self._console.print(
                f"the table cannot be shown any more: {what}; see: ./image-search logs stack",
                markup=False,
                highlight=False,
            )

    async def _keep_asking(self) -> None:
        url = self._settings.gateway_url
        while True:
            # The state may require a key; the health does not.
            for path in ("state", "healthcheck"):
                try:
                    status, body = await questions.get_json(
                        f"{url}/api/v1/{path}", ASK_TIMEOUT_SECONDS, questions.credentials()
                    )
                except questions.NoAnswer:
                    self._state = {}
                    break
                self._state = body if isinstance(body, dict) else {}
                if status == 200:
                    break
            await asyncio.sleep(ASK_SECONDS)

    def _snapshot(self, processes: Sequence[SupervisedProcess], ready: bool) -> Snapshot:
        memory, now = rows.memory_by_session(), time.monotonic()
        run = self._settings.run
        return Snapshot(
            address=self._settings.gateway_url if self._gateway else "",
            processes=[
                ProcessLine(
                    each.spec.name,
                    each.state,
                    now - each.started if each.pid else None,
                    memory.get(each.pid, 0) if each.pid else 0,
                    each.restarts,
                )
                for each in processes
            ],
            model=self._settings.active_model,
            ready=ready,
            state=self._state,
            watcher=self._watcher(),
            waits=[
                f"{each.spec.name} waits: {what}"
                for each in processes
                for what in rows.waiting_for(run / f"{each.spec.name}.ready")
            ],
            messages=list(self._messages),
        )

    def _watcher(self) -> Mapping[str, Any]:
        try:
            status: Any = json.loads(self._settings.watcher_status.read_text())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}
