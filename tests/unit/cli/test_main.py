"""The commands: each is there when it is asked for, and loads no other's libraries."""

import subprocess
import sys

import pytest
from typer.main import get_group

from cli.__main__ import MODULES, build
from tests.conftest import ROOT


def commands(*arguments: str) -> set[str]:
    return set(get_group(build(arguments)).commands)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("nonsense",)])
def test_all_are_there_where_none_is_asked_for(arguments: tuple[str, ...]) -> None:
    assert {*MODULES, "up", "down", "status"} <= commands(*arguments)


@pytest.mark.parametrize("name", MODULES)
def test_the_one_asked_for_is_there(name: str) -> None:
    assert commands(name, "anything") & set(MODULES) == {name}


def test_status_loads_neither_the_analyses_nor_the_hub() -> None:
    code = (
        "import sys; from cli.__main__ import build; build(['status']);"
        "print({'duckdb', 'pyarrow', 'huggingface_hub'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()", done.stdout
