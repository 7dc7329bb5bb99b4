"""Commands that ask little load little, and report what they find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.record import ProcessRow, Record, RecordFile, identity
from tests.conftest import ROOT

HEAVY = {
    *("onnx", "numpy", "tritonclient", "weaviate", "grpc", "aiokafka", "duckdb", "pyarrow"),
    *(
        "huggingface_hub",
        "httpx",
        "psutil",
        "rich.table",
        "fastapi",
        "PIL",
        "pydantic_settings",
        "aiohttp",
    ),
}
"""Libraries that take longer to import than a light command may take."""
SCRIPT = (
    "import json, sys\n"
    "from cli.__main__ import main\n"
    "sys.argv = ['image-search', *json.loads(sys.argv[1])]\n"
    "try:\n"
    "    main()\n"
    "except SystemExit:\n"
    "    pass\n"
    f"print(json.dumps(sorted({HEAVY!r} & sys.modules.keys())), file=sys.stderr)\n"
)
PORTS = ("KAFKA_PORT", "WEAVIATE_PORT", "WEAVIATE_GRPC_PORT", "TRITON_PORT", "GATEWAY_PORT")
NOWHERE = dict.fromkeys(PORTS, "9")
"""Ports on which nothing answers."""


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["up", "--help"], ["down"], ["logs"], ["status"]),
        *(["status", "--json"], ["down", "--json"]),
    ],
    ids=" ".join,
)
def test_no_heavy_library_is_loaded(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)],
        cwd=ROOT,
        env={**os.environ, **NOWHERE, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_the_overview_says_of_each_group_what_the_group_says() -> None:
    from typer.main import get_group

    from cli.__main__ import MODULES, build

    overview, whole = get_group(build(["--help"])).commands, get_group(build()).commands
    assert overview.keys() == whole.keys()
    for name in MODULES:
        assert overview[name].get_short_help_str(100) == whole[name].get_short_help_str(100)


def test_a_running_stack_takes_no_more_libraries(tmp_path: Path) -> None:
    row = ProcessRow(name="x", state="ready", pid=os.getpid(), identity=identity(os.getpid()))
    gone = row.model_copy(update={"name": "y", "identity": "0:0"})
    (tmp_path / "run").mkdir()
    file = RecordFile(tmp_path / "run")
    file.write(Record(launcher=row, gateway_url="http://x", processes=[row, gone]))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, '["status"]'],
        cwd=ROOT,
        env={**os.environ, **NOWHERE, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []
    head, first, second = (line.split() for line in done.stdout.splitlines()[:3])
    assert head == ["process", "state", "pid", "up", "restarts", "memory", "log"]
    assert first[:3] == ["x", "ready", str(os.getpid())]
    assert second[:2] == ["y", "gone"]
