"""Every port has a fake (in-memory), and a contract suite for the fake and the real one."""

import importlib
import inspect
import re
from typing import Protocol

import pytest

from tests.architecture.test_imports import ROOT

PORTS = [
    f"{path.parent.name}.{name}"
    for path in sorted((ROOT / "adapters").glob("*/port.py"))
    for name, port in inspect.getmembers(
        importlib.import_module(f"adapters.{path.parent.name}.port"), inspect.isclass
    )
    if Protocol in port.__bases__ and port.__module__ == f"adapters.{path.parent.name}.port"
]


def test_ports_are_found() -> None:
    assert {"embedder.Embedder", "index.ImageIndex", "log.EventLog", "log.GroupAdmin"} <= {*PORTS}


@pytest.mark.parametrize("port", PORTS)
def test_it_has_a_fake_and_a_contract_suite(port: str) -> None:
    folder, name = port.split(".")
    protocol = getattr(importlib.import_module(f"adapters.{folder}.port"), name)
    fake = getattr(importlib.import_module(f"adapters.{folder}.fake"), f"Fake{name}")
    for method, promised in inspect.getmembers(protocol, inspect.isfunction):
        if not method.startswith("_"):
            given = inspect.signature(getattr(fake, method))
            assert list(given.parameters) == list(inspect.signature(promised).parameters), method
    suite = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    contract = (ROOT / "tests" / "contract" / f"test_{suite}.py").read_text(encoding="utf-8")
    assert f"Fake{name}" in contract
    assert 'params=["memory"' in contract
