"""How long starts take: the first one against the compilation that it contains, and warm ones.

`python3 -m benchmarks.first_start --against COMMIT` clones this repository and, for comparison, an
earlier commit of it into a temporary folder, and measures in one run, with an empty cache each:

1. the compilation of Weaviate alone, with fetching the compiler and the sources;
2. `make run` in each fresh clone, until it says that it is ready;
3. further starts of both, in turns (`--warm`, 5).

All stacks use the usual ports, so none may be running. `MODEL_NAME` is `lite`, so that no start has
a download beside it. Prints tables in Markdown. Takes about 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READY = " ready: "
LIMIT_SECONDS = 1800.0
COMPILE = """
from pathlib import Path
from stack.install import binaries
from stack.install.preparation import Cache
from stack.settings import StackSettings
binaries.weaviate(StackSettings(), Cache(StackSettings().cache, print))
"""


def environment(home: Path) -> dict[str, str]:
    """The variables of a user whose home folder holds nothing but a cache."""
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {**found, "HOME": str(home), "MODEL_NAME": "lite"}


def clone(commit: str, folder: Path) -> Path:
    """A clone at a commit."""
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "-q", commit], check=True)
    return folder


def start(folder: Path, home: Path) -> float:
    """Seconds until `make run` is ready; it is stopped then.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    log = home / f"{folder.name}.log"
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=folder,
            env=environment(home),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        while READY not in log.read_text():
            if process.poll() is not None or time.monotonic() - started > LIMIT_SECONDS:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.05)
        return time.monotonic() - started
    finally:
        subprocess.run(
            ["make", "down"], cwd=folder, env=environment(home), check=True, capture_output=True
        )
        process.wait()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", required=True, help="an earlier commit")
    parser.add_argument("--warm", type=int, default=5, help="number of further starts of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-start-", dir="/var/tmp") as temporary:
        top = Path(temporary)
        folders = {"now": clone("HEAD", top / "now"), "before": clone(options.against, top / "old")}
        homes = {name: top / f"home-{name}" for name in folders}
        for home in [*homes.values(), top / "home-alone"]:
            home.mkdir()
        # Nothing is kept but the environment that runs the snippet: it is not what is measured.
        alone = clone("HEAD", top / "alone")
        subprocess.run(
            [alone / "image-search", "prepare", "--help"],
            env=environment(top / "home-alone"),
            check=True,
            capture_output=True,
        )
        began = time.monotonic()
        subprocess.run(
            [alone / ".venv" / "bin" / "python", "-c", COMPILE],
            cwd=alone,
            env={**environment(top / "home-alone"), "PYTHONPATH": str(alone)},
            check=True,
            stdout=sys.stderr,
        )
        compiled = time.monotonic() - began
        cold = {name: start(folder, homes[name]) for name, folder in folders.items()}
        warm: dict[str, list[float]] = {name: [] for name in folders}
        for _ in range(options.warm):
            for name, folder in folders.items():
                warm[name].append(start(folder, homes[name]))
    print(f"{os.cpu_count()} cores, load at the end {os.getloadavg()[0]:.1f}\n")
    print("| first start, cache empty | s | of the compilation |\n|---|---|---|")
    print(f"| compiling Weaviate alone | {compiled:.0f} | 1 |")
    for name, seconds in cold.items():
        print(f"| `make run` until ready, {name} | {seconds:.0f} | {seconds / compiled:.2f} |")
    print("\n| further start until ready | median, s | least | most |\n|---|---|---|---|")
    for name, runs in warm.items():
        print(f"| {name} | {statistics.median(runs):.1f} | {min(runs):.1f} | {max(runs):.1f} |")


if __name__ == "__main__":
    main()
