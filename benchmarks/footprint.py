"""The memory of the whole local stack when it is idle, by process.

`.venv/bin/python -m benchmarks.footprint` starts a stack with its own ports and state, lets it
index `images/`, searches, waits until it has been idle for `--idle` seconds, and prints a table in
Markdown. PSS counts a page that several processes share in parts, so that it can be summed; RSS
counts it in each of them; "own" is what no other process shares.
`--model NAME` serves that model of the store; `--clip` one of CLIP ViT-B/32's shape, with random
weights; `--both` starts with `lite` and switches to that one, which is how a first start ends: both
stay loaded. At the end the first search after the idle time and the next twenty are timed. With
`--against FOLDER` another checkout is measured first, in the same environment.
If another stack runs on the machine, let `CACHE_DIR` name a copy of the cache: pages of the same
files would count in part only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from models.store import ModelStore, Origin
from stack.record import RecordFile
from tests.conftest import ROOT, stack_environment
from tests.support import clip_model

INDEX_SECONDS = 600.0
SEARCHES = ("a cat", "a tennis player", "a red car", "fruit in a bowl", "mountains") * 4
CLIP = "clip-of-random-weights"


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process takes, in MB."""

    process: str
    pss: float
    rss: float
    own: float


def memory(pid: int, process: str) -> Memory | None:
    """The memory of a process; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return None

    def mb(*names: str) -> float:
        return sum(int(words[words.index(f"{name}:") + 1]) for name in names) * 1024 / 1e6

    return Memory(process, mb("Pss"), mb("Rss"), mb("Private_Clean", "Private_Dirty"))


def memories(run: Path) -> list[Memory]:
    """All processes of the stack with this run folder, and their children."""
    record = RecordFile(run).read()
    assert record is not None, "the stack does not run"
    found = []
    for row in [record.launcher, *record.processes]:
        if row.pid is None or not psutil.pid_exists(row.pid):
            continue
        found.append(memory(row.pid, row.name))
        # The launcher's children are the other rows.
        if row.name != "launcher":
            for child in psutil.Process(row.pid).children(recursive=True):
                found.append(memory(child.pid, f"{row.name}: {kind(child)}"))
    return [each for each in found if each is not None]


def kind(child: psutil.Process) -> str:
    """What a child process is for."""
    try:
        command = child.cmdline()
    except psutil.Error:
        return "ended"
    if "triton_python_backend_stub" in command[0]:
        return f"stub of {Path(command[1]).parents[1].name}"
    line = " ".join(command)
    for part in ("resource_tracker", "spawn_main", "forkserver"):
        if part in line:
            return part
    return Path(command[0]).name


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The gateway's answer, from JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return json.load(response)


def index_and_search(gateway: str) -> None:
    """Wait until every picture is indexed, then search."""
    count = sum(1 for each in (ROOT / "images").rglob("*.*") if each.suffix in (".jpg", ".png"))
    deadline = time.monotonic() + INDEX_SECONDS
    while (state := ask(f"{gateway}/api/v1/state"))["images"] < count or state["waiting"]:
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    found: dict[str, Any] = {}
    for text in SEARCHES:
        found = ask(f"{gateway}/api/v1/search-image", {"text": text, "limit": 20})
    assert found["matches"], "no search found anything"


@contextmanager
def running_stack(code: Path, environment: dict[str, str], switch_to: str | None) -> Iterator[None]:
    """The stack of a checkout, after a switch of the model if one is named."""

    def command(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=code,
            env={**os.environ, **environment, "PYTHONPATH": str(code)},
            check=True,
            stdout=sys.stderr,
        )

    command("up", "--detach")
    try:
        if switch_to is not None:
            command("models", "switch", switch_to)
        yield
    finally:
        command("down")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one checkout's stack takes."""

    busy: list[Memory]
    """Right after indexing and searching."""
    idle: list[Memory]
    first: float
    """Milliseconds of the first search after the idle time."""
    next: float
    """The median of the next ones."""


def timed_search(gateway: str, text: str) -> float:
    """Milliseconds of a search; the text is new, so that no cache answers."""
    body = {"text": f"{text} {time.monotonic_ns()}", "limit": 20}
    started = time.perf_counter()
    ask(f"{gateway}/api/v1/search-image", body)
    return 1000 * (time.perf_counter() - started)


def measure(code: Path, options: argparse.Namespace, models: Path | None) -> Measured:
    """Run one checkout's stack and measure it."""
    model = CLIP if options.clip else options.model
    with tempfile.TemporaryDirectory() as state:
        environment = stack_environment(Path(state), ROOT / "images")
        environment |= {"MODEL_NAME": model or "lite"}
        if models is not None:
            environment["MODELS_DIR"] = str(models)
        with running_stack(code, environment, CLIP if options.both else None):
            gateway = f"http://127.0.0.1:{environment['GATEWAY_PORT']}"
            index_and_search(gateway)
            run = Path(state) / "run"
            busy = memories(run)
            time.sleep(options.idle)
            idle = memories(run)
            first, *following = (timed_search(gateway, text) for text in ("a boat", *SEARCHES))
            return Measured(busy, idle, first, statistics.median(following))


def sums(found: list[Memory]) -> dict[str, tuple[int, float, float, float]]:
    """Process -> how many of them, and their PSS, RSS and own memory; the largest first."""
    names = dict.fromkeys(each.process for each in found)
    rows = {}
    for name in names:
        same = [each for each in found if each.process == name]
        pss, rss, own = (sum(getattr(each, key) for each in same) for key in ("pss", "rss", "own"))
        rows[name] = (len(same), pss, rss, own)
    return dict(sorted(rows.items(), key=lambda row: -row[1][1]))


def table(found: list[Memory]) -> str:
    """The processes in Markdown, with their sum."""
    lines = ["| process | PSS, MB | RSS, MB | own, MB |", "|---|---|---|---|"]
    for name, (count, *values) in sums(found).items():
        label = name if count == 1 else f"{name} ({count})"
        lines.append(f"| {label} | {' | '.join(f'{value:.0f}' for value in values)} |")
    totals = (sum(getattr(each, key) for each in found) for key in ("pss", "rss", "own"))
    lines.append(f"| **all** | {' | '.join(f'**{total:.0f}**' for total in totals)} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--idle", type=float, default=90.0, help="seconds to wait")
    parser.add_argument("--model", help="a model of the store; default: lite")
    parser.add_argument("--clip", action="store_true", help="random weights of ViT-B/32's shape")
    parser.add_argument("--both", action="store_true", help="lite, then a switch to that of --clip")
    parser.add_argument("--against", type=Path, help="another checkout, to measure as well")
    given = parser.parse_args()
    checkouts = {"now": ROOT}
    if given.against:
        checkouts = {"before": given.against.resolve(), "now": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        models = None
        if given.clip or given.both:
            models = Path(folder) / "models"
            layout = clip_model.write_layout(
                Path(folder) / "layout",
                layers=clip_model.ALL_LAYERS,
                tokens=clip_model.ALL_TOKENS,
            )
            ModelStore(models).add(layout, CLIP, Origin(source="random"), min_score=-1.0)
        print(f"`python -m benchmarks.footprint {' '.join(sys.argv[1:])}`".replace(" `", "`"))
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        what = "lite and CLIP" if given.both else CLIP if given.clip else given.model or "lite"
        for name, code in checkouts.items():
            found = measure(code, given, models)
            after = sum(each.pss for each in found.busy)
            print(f"\n## {what}, {name}\n\n{table(found.idle)}\n")
            print(f"Right after indexing and searching: {after:.0f} MB of PSS. The first search")
            print(f"after the idle time took {found.first:.0f} ms, the next {found.next:.0f} ms.")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
