"""The commands: each can be called, and loads no other's libraries."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_group

from cli.__main__ import MODULES, build
from tests.conftest import ROOT


def commands(*arguments: str) -> set[str]:
    return set(get_group(build(arguments)).commands)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("nonsense",)])
def test_all_commands_are_listed_without_a_command(arguments: tuple[str, ...]) -> None:
    assert {*MODULES, "up", "down", "status"} <= commands(*arguments)


@pytest.mark.parametrize("name", MODULES)
def test_each_command_is_found_by_name(name: str) -> None:
    assert commands(name, "anything") & set(MODULES) == {name}


@pytest.mark.slow
def test_status_loads_neither_the_analyses_nor_the_hub() -> None:
    code = (
        "import sys; from cli.__main__ import build; build(['status']);"
        "print({'duckdb', 'pyarrow', 'huggingface_hub'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()", done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("remove", "no-such"), ("render", "no-such", "--target", "cpu", "--to", "x")]
)
def test_an_error_of_a_model_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folders = {name: str(tmp_path / name) for name in ("STATE_DIR", "CACHE_DIR", "MODELS_DIR")}
    done = subprocess.run(
        [sys.executable, "-m", "cli", "models", *arguments],
        cwd=ROOT,
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: there is no model 'no-such'; [^\n]+\n", done.stderr)
