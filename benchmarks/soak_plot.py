"""Plots the samples of a soak: a panel for each metric, a line for each process.

`python -m benchmarks.soak_plot soak.csv soak.png` plots an earlier run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.soak_samples import METRICS, Sample, read

mpl.use("Agg")
from matplotlib import pyplot as plt

TITLES = {
    "memory_mib": "memory (proportional set size, MiB)",
    "threads": "threads",
    "sockets": "sockets",
    "files": "open file descriptors",
}


def plot(samples: Sequence[Sample], to: Path) -> None:
    """Draw them; gaps are times when the process did not run."""
    figure, panels = plt.subplots(2, 2, figsize=(15, 10), sharex=True)
    names = sorted({each.process for each in samples})
    colours = plt.get_cmap("tab20")
    for metric, panel in zip(METRICS, panels.flat, strict=True):
        for number, name in enumerate(names):
            own = [each for each in samples if each.process == name]
            panel.plot(
                [each.minute for each in own],
                [getattr(each, metric) for each in own],
                label=name,
                color=colours(number % 20),
                linewidth=1.1,
            )
        panel.set_title(TITLES[metric])
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    for panel in panels[1]:
        panel.set_xlabel("minutes")
    panels[0][1].legend(loc="upper right", fontsize="small", ncols=2)
    figure.tight_layout()
    figure.savefig(to, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    plot(read(Path(sys.argv[1])), Path(sys.argv[2]))
