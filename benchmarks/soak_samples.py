"""Samples the resources of each process of a running system, and checks whether they grow."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from stack.record import RecordFile

METRICS = ("memory_mib", "threads", "sockets", "files")
ALLOWED = {"memory_mib": (1.10, 16.0), "threads": (1.0, 3.0), "sockets": (1.0, 4.0)}
"""Metric -> (factor, addend) by which a late median may exceed an early one; `files`: as sockets.

A process that leaks a little in each of thousands of operations exceeds both by far.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process and its children at one moment.

    `minute` counts from the start of the run. `memory_mib` is the memory that the process alone has
    written, `Private_Dirty`, in MiB: a share of common pages would grow whenever another process
    ends, and files mapped for reading, like those of Weaviate, can be reclaimed.
    """

    minute: float
    process: str
    pid: int
    children: int
    memory_mib: float
    threads: int
    sockets: int
    files: int


def sample(run: Path, started: float) -> list[Sample]:
    """All processes of the record in the folder `run`; `started` is of `time.monotonic()`."""
    record = RecordFile(run).read()
    minute = round((time.monotonic() - started) / 60, 3)
    found = []
    for row in [record.launcher, *record.processes] if record else []:
        if row.pid is None:
            continue
        try:
            process = psutil.Process(row.pid)
            # The launcher's children are the other rows.
            children = [] if row.name == "launcher" else process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
        found.append(_together(minute, row.name, process, children))
    return found


def _together(
    minute: float, name: str, process: psutil.Process, children: Sequence[psutil.Process]
) -> Sample:
    memory, threads, sockets, files = 0.0, 0, 0, 0
    for each in (process, *children):
        try:
            memory += _private_mib(each.pid)
            threads += each.num_threads()
            sockets += len(each.net_connections(kind="inet"))
            files += each.num_fds()
        except (psutil.Error, OSError):
            continue  # It ended after it was listed.
    return Sample(
        minute, name, process.pid, len(children), round(memory, 1), threads, sockets, files
    )


def _private_mib(pid: int) -> float:
    words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return int(words[words.index("Private_Dirty:") + 1]) / 1024


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Write the samples as CSV with a header line."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in samples)


def read(path: Path) -> list[Sample]:
    """Read what `write` wrote."""
    with path.open(newline="") as file:
        return [
            Sample(
                float(row["minute"]),
                row["process"],
                int(row["pid"]),
                int(row["children"]),
                float(row["memory_mib"]),
                int(row["threads"]),
                int(row["sockets"]),
                int(row["files"]),
            )
            for row in csv.DictReader(file)
        ]


@dataclass(frozen=True, slots=True)
class Growth:
    """Medians of one metric of one process early and late in the run."""

    process: str
    metric: str
    early: float
    late: float

    @property
    def is_flat(self) -> bool:
        """Whether it stayed within what is allowed."""
        factor, addend = ALLOWED.get(self.metric, ALLOWED["sockets"])
        return self.late <= self.early * factor + addend


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Compares the last quarter of the run with the second one; the first is warm-up."""
    end = max(each.minute for each in samples)
    found = []
    for process in sorted({each.process for each in samples}):
        own = [each for each in samples if each.process == process]
        early = [each for each in own if end / 4 <= each.minute < end / 2]
        late = [each for each in own if each.minute >= end * 3 / 4]
        if not early or not late:
            continue  # It did not run in both quarters.
        for metric in METRICS:
            found.append(
                Growth(
                    process,
                    metric,
                    statistics.median(getattr(each, metric) for each in early),
                    statistics.median(getattr(each, metric) for each in late),
                )
            )
    return found


def table(found: Sequence[Growth], samples: Sequence[Sample]) -> str:
    """The growths in Markdown, one line for each process."""
    lines = [
        "| process | starts | memory, MiB | threads | sockets | open files | |",
        "|---|---|---|---|---|---|---|",
    ]
    for process in dict.fromkeys(each.process for each in found):
        own = {each.metric: each for each in found if each.process == process}
        cells = [f"{own[m].early:g} → {own[m].late:g}" for m in METRICS]
        starts = len({each.pid for each in samples if each.process == process})
        verdict = "flat" if all(each.is_flat for each in own.values()) else "**grows**"
        lines.append(f"| {process} | {starts} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines)
