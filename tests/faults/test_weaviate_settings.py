"""Weaviate runs with memory that fits the machine, and creates no collection implicitly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters import machine
from stack.install.preparation import Cache
from stack.processes import weaviate
from stack.record import ProcessRow, Record, RecordFile, identity
from stack.rows import hint
from stack.settings import GIB, StackSettings
from tests.conftest import ROOT


def environment(tmp_path: Path, **values: Any) -> dict[str, str]:
    binary = tmp_path / "weaviate-server"
    binary.write_text("")
    binary.chmod(0o755)
    settings = StackSettings(state_dir=tmp_path, weaviate_binary=binary, **values)
    return dict(weaviate(settings, Cache(tmp_path, lambda _: None)).environment)


def compose() -> dict[str, str]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, str] = document["services"]["weaviate"]["environment"]
    return found


def test_every_deployment_disables_automatic_collections(tmp_path: Path) -> None:
    assert environment(tmp_path)["AUTOSCHEMA_ENABLED"] == "false"
    assert compose()["AUTOSCHEMA_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("memory", "expected"), [(2 * GIB, GIB), (24 * GIB, int(24 * GIB * 0.4)), (GIB // 2, GIB)]
)
def test_weaviates_memory_is_a_share_of_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, expected: int
) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: memory)
    assert environment(tmp_path)["GOMEMLIMIT"] == str(expected)


def test_memory_can_be_set(tmp_path: Path) -> None:
    assert environment(tmp_path, weaviate_memory="6GiB")["GOMEMLIMIT"] == str(6 * GIB)


@pytest.mark.parametrize(("limit", "expected"), [("max\n", None), (f"{GIB}\n", GIB)])
def test_a_container_has_less_than_its_machine(
    tmp_path: Path, limit: str, expected: int | None
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    found = machine.machine_memory(file)
    assert found == expected if expected else found > GIB // 2


@pytest.mark.parametrize(
    ("complaint", "advice"),
    [
        ("write vectors: not enough memory mappings", "WEAVIATE_MEMORY"),
        ("store is read-only", "free some space"),
        ("store is READONLY", "free some space"),
        ("open file: no space left on device", "free some space"),
        ("connection refused", ""),
    ],
)
def test_the_hint_fits_the_complaint(complaint: str, advice: str) -> None:
    assert advice in hint(complaint)
    assert bool(hint(complaint)) == bool(advice)


@pytest.mark.slow
def test_status_shows_what_an_indexer_waits_for(tmp_path: Path) -> None:
    """The process reports it with its heartbeat; its log need not be read."""
    row = ProcessRow(
        name="indexer-1", state="ready", pid=os.getpid(), identity=identity(os.getpid())
    )
    run = tmp_path / "run"
    run.mkdir()
    RecordFile(run).write(Record(launcher=row, gateway_url="http://x", processes=[row]))
    (run / "indexer-1.ready").write_text("write vectors: not enough memory\n")
    for words in (["status"], ["status", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=ROOT,
            env={
                **os.environ,
                "STATE_DIR": str(tmp_path),
                "KAFKA_PORT": "9",
                "TRITON_PORT": "9",
                "WEAVIATE_PORT": "9",
                "GATEWAY_PORT": "9",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "not enough memory" in done.stdout, done.stderr
        assert "WEAVIATE_MEMORY" in done.stdout
    (reported,) = json.loads(done.stdout)["processes"]
    assert len(reported["waiting_for"]) == 1
