"""schemathesis sends requests that the OpenAPI document allows, and some that it does not."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import System


@pytest.mark.timeout(700)
def test_schemathesis_finds_nothing(system: System, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(ROOT / "tests" / "e2e" / "schemathesis.toml"),
            "run",
            f"{system.gateway}/openapi.json",
            "--checks",
            "all",
            "--max-examples",
            "40",
            "--seed",
            "1",
            "--no-color",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    paths = httpx.get(f"{system.gateway}/openapi.json", trust_env=False).json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    assert operations >= 9
    assert f"{operations} selected / {operations} total" in done.stdout
