"""Commands that ask little load little, and report what they find."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from cli.__main__ import MODULES, build
from stack.record import ProcessRow, Record, RecordFile, identity
from tests.conftest import ROOT

HEAVY = {
    *("onnx", "numpy", "tritonclient", "weaviate", "grpc", "aiokafka", "duckdb", "pyarrow"),
    *(
        "huggingface_hub",
        "httpx",
        "psutil",
        "rich",
        "fastapi",
        "faststream",
        "fsspec",
        "PIL",
        "pydantic_settings",
        "aiohttp",
    ),
}
"""Libraries that take longer to import than a light command may take."""
HELP_NEEDS_NO = HEAVY | {"asyncio", "http.client", "schemas.events", "stack.settings"}
"""Libraries and modules that no `--help` may load. Typer loads pydantic, for any command."""
SCRIPT = (
    "import json, sys\n"
    "from cli.__main__ import main\n"
    "for words in json.loads(sys.argv[1]):\n"
    "    sys.argv = ['image-search', *words]\n"
    "    try:\n"
    "        main()\n"
    "    except SystemExit:\n"
    "        pass\n"
    "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
)
PORTS = ("KAFKA_PORT", "WEAVIATE_PORT", "WEAVIATE_GRPC_PORT", "TRITON_PORT", "GATEWAY_PORT")
NOWHERE = dict.fromkeys(PORTS, "9")
"""Ports on which nothing answers."""


LIGHT = (
    ["--version"],
    ["down", "--json"],
    ["logs"],
    ["logs", "nobody"],
    ["status"],
    ["status", "--json"],
    ["search", "tennis"],
    ["search", "--json", "2:dog - fruit"],
    ["search", "--like", "a.jpg", "--folder", "x"],
    ["index", "skipped"],
    ["index", "skipped", "--json"],
    ["index", "reconcile"],
    ["models", "list"],
    ["models", "list", "--json"],
    ["models", "info", "lite"],
    ["models", "info", "nobody"],
    ["models", "pull", "nobody"],
    ["models", "remove", "lite"],
    ["models", "render", "nobody", "--target", "cpu", "--to", "x"],
    ["models", "switch", "next", "--max-missing", "nan"],
    ["dlq", "retry"],
    ["dlq", "show"],
    ["analytics", "replay", "--topic", "nothing"],
    ["analytics", "sql", "FROM totals", "--since", "soon"],
    ["analytics", "forget"],
)
"""Commands that read a file, ask one question, or refuse what they were given."""


def run(tmp_path: Path, *commands: list[str]) -> tuple[str, set[str]]:
    """Standard output, and the modules that were loaded by all of these commands in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, **NOWHERE, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def commands() -> list[list[str]]:
    """Every command, and every group of commands."""

    def below(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, [*words, name])

    return list(below(get_group(build()), []))


@pytest.mark.slow
def test_no_help_loads_a_heavy_library(tmp_path: Path) -> None:
    each = commands()
    assert ["models", "decline"] in each
    text, loaded = run(tmp_path, *([*words, "--help"] for words in each))
    assert text.count("Usage: ") == len(each)
    assert loaded & HELP_NEEDS_NO == set()


@pytest.mark.slow
def test_no_light_command_loads_a_heavy_library(tmp_path: Path) -> None:
    _, loaded = run(tmp_path, *LIGHT)
    for words in LIGHT if loaded & HEAVY else ():
        assert run(tmp_path, words)[1] & HEAVY == set(), words
    assert loaded & HEAVY == set()


def test_the_automatic_change_has_the_commands_of_its_module() -> None:
    from cli import models, models_adopt

    for ours, theirs in (
        (models.adopt, models_adopt.adopt),
        (models.decline, models_adopt.decline),
    ):
        assert ours.__doc__ == theirs.__doc__
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )


def test_the_topics_in_the_help_are_those_that_there_are() -> None:
    from cli.analytics import TOPIC_NAMES
    from schemas.topics import BY_NAME

    assert tuple(BY_NAME) == TOPIC_NAMES


def test_the_overview_says_of_each_group_what_the_group_says() -> None:
    overview, whole = get_group(build(["--help"])).commands, get_group(build()).commands
    assert overview.keys() == whole.keys()
    for name in MODULES:
        assert overview[name].get_short_help_str(100) == whole[name].get_short_help_str(100)


@pytest.mark.slow
def test_a_running_stack_takes_no_more_libraries(tmp_path: Path) -> None:
    row = ProcessRow(name="x", state="ready", pid=os.getpid(), identity=identity(os.getpid()))
    gone = row.model_copy(update={"name": "y", "identity": "0:0"})
    (tmp_path / "run").mkdir()
    file = RecordFile(tmp_path / "run")
    file.write(Record(launcher=row, gateway_url="http://x", processes=[row, gone]))
    text, loaded = run(tmp_path, ["status"])
    assert loaded & HEAVY == set()
    head, first, second = (line.split() for line in text.splitlines()[:3])
    assert head == ["process", "state", "pid", "up", "restarts", "memory", "log"]
    assert first[:3] == ["x", "ready", str(os.getpid())]
    assert second[:2] == ["y", "gone"]
