"""The time that commands take themselves, besides what servers take.

`.venv/bin/python -m benchmarks.cli_start` runs `--help` of every command, the commands that need
little and two that need much, `--runs` times, and prints the medians of their processor time (user
and system, children included) and of their duration, in seconds, as a table in Markdown. Without a
running system, `status` finds none; start one (`make run`) to measure what it takes then, and leave
it running with `--no-down`. With `--against FOLDER` the commands of another checkout take turns
with those of this one, in the same environment: old against new. `import aiokafka` is measured
besides, as a measure of how quick the machine is now.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from typer.main import get_command

from cli.__main__ import build

ROOT = Path(__file__).resolve().parents[1]
LIGHT = (
    "--version",
    "down",
    "logs",
    "status",
    "status --json",
    "search tennis",
    "index skipped",
    "models list",
    "models info lite",
)
"""Commands that read a file or ask one question, besides `--help`."""
HEAVY = ("dlq list", "analytics metrics")
"""Commands that need a Kafka client or DuckDB."""


def helps() -> list[str]:
    """`--help` of everything that there is."""
    found, waiting = [], [("", get_command(build()))]
    while waiting:
        words, command = waiting.pop(0)
        found.append(f"{words} --help".strip())
        below = getattr(command, "commands", {})
        waiting += [(f"{words} {name}".strip(), child) for name, child in below.items()]
    return found


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of processor time and of duration."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    lasted = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, lasted


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--few", action="store_true", help="of `--help`, only the overview")
    parser.add_argument("--no-down", action="store_true", help="leave a running system running")
    options = parser.parse_args()
    commands = (*LIGHT, *HEAVY, *(["--help"] if options.few else helps()))
    chosen = [each for each in commands if not (options.no_down and each == "down")]
    kinds: dict[str, tuple[list[str], Path]] = {
        "import aiokafka": ([sys.executable, "-c", "import aiokafka"], ROOT)
    }
    for words in chosen:
        kinds[f"./image-search {words}"] = ([str(ROOT / "image-search"), *words.split()], ROOT)
        if options.against is not None:
            # Without the first step, which would make an environment there.
            command = [sys.executable, "-m", "cli", *words.split()]
            kinds[f"{words}, before"] = (command, options.against.resolve())
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(options.runs):
        for kind, (command, folder) in kinds.items():
            found[kind].append(measured(command, folder))
    print("| command | processor time, s | duration, s |\n|---|---|---|")
    for kind, runs in found.items():
        used, lasted = (statistics.median(each) for each in zip(*runs, strict=True))
        print(f"| `{kind}` | {used:.2f} | {lasted:.2f} |")


if __name__ == "__main__":
    main()
