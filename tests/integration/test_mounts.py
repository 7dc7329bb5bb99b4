"""Disks that are mounted and unmounted for real, below a folder that is watched."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mount_scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_real_mounts_come_and_go_without_removals(scenario: str, tmp_path: Path) -> None:
    """A mount namespace of its own, which an unprivileged user may have, too."""
    within = ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*within, sys.executable, "-m", "tests.support.mount_scenarios", scenario, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
