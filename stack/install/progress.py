"""How far preparation is: as lines, or in a terminal as one view with a bar for each step."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn

from stack.install.standard_output import printable

Say = Callable[[str], None]


class Lines:
    """Prints a line when a step begins and ends, and now and then while it lasts.

    Steps may run in several threads. `stop` ends the commands that run for them.
    """

    interval = 15.0
    """Seconds between two reports of a command."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether preparation has been given up."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Give up: running commands are ended, and no further one is started."""
        self._stopped.set()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step, within which this thread calls `update`."""
        self.say(f"preparing {what}")
        started = time.monotonic()
        yield
        self.say(f"prepared {what} in {time.monotonic() - started:.0f} s")

    def update(self, what: str, seconds: float, share: float | None, detail: str) -> None:
        """Report a command of this thread's step.

        Args:
            what: what the command does.
            seconds: how long it has been running.
            share: what part of its work is done, if it can be estimated.
            detail: the last line that it printed.
        """
        estimate = "" if share is None else f", about {share:.0%}{remaining(seconds, share)}"
        self.say(f"  … {what}, {seconds:.0f} s{estimate}{': ' if detail else ''}{detail}")


def remaining(seconds: float, share: float) -> str:
    """The time that is left, in words; empty as long as too little is known."""
    if share < 0.05:
        return ""
    left = seconds * (1 - share) / share
    return f", {left:.0f} s left" if left < 100 else f", {left / 60:.0f} min left"


class Bars(Lines):
    """Shows a bar for each step in a terminal, from `with` on."""

    interval = 0.5

    def __init__(self, console: Console) -> None:
        super().__init__(
            # What a program prints is no markup, and may hold anything.
            lambda text: console.print(printable(text), markup=False, highlight=False)
        )
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=console,
        )
        self._steps = threading.local()

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """See `Lines.step`."""
        started = time.monotonic()
        bar = self._bars.add_task(what, total=None, detail="")
        stack = self._stack()
        stack.append(bar)
        try:
            yield
            seconds = time.monotonic() - started
            self._bars.update(bar, total=1, completed=1, detail=f"{seconds:.0f} s")
        finally:
            stack.pop()
            self._bars.stop_task(bar)

    def update(self, what: str, seconds: float, share: float | None, detail: str) -> None:
        """See `Lines.update`."""
        stack = self._stack()
        if not stack:
            return
        shown = (
            f"{seconds:.0f} s" if share is None else f"{seconds:.0f} s{remaining(seconds, share)}"
        )
        self._bars.update(
            stack[-1], total=None if share is None else 1, completed=share or 0, detail=shown
        )

    def _stack(self) -> list[TaskID]:
        """The steps of this thread, the innermost one last."""
        if not hasattr(self._steps, "stack"):
            self._steps.stack = []
        found: list[TaskID] = self._steps.stack
        return found


@contextmanager
def shown(say: Say) -> Iterator[Lines]:
    """Bars if standard output is a terminal that can move its cursor, else lines by `say`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a tool prints may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        yield Lines(say)
        return
    with Bars(console) as bars:
        yield bars
