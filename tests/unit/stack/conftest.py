"""Fixtures of these tests."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.provision import recovered_collection
from models import switching
from stack import adoption as adopting
from stack.settings import PREFERRED_MODEL as NAME
from stack.settings import StackSettings
from stack.triton_models import model_registry
from tests.support import tiny_model
from tests.support.adoption_world import Usage, World
from tests.support.hub_server import hub


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A stack on which `lite` answers searches, and a hub with a small model under every name."""
    monkeypatch.setattr(switching, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(adopting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(adopting, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**12))
    settings = StackSettings(state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")
    assert settings.model_name == NAME
    with model_registry(settings).changing():
        pass
    with hub(tiny_model.write_layout(tmp_path / "repository")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        world = World(settings, server)
        lite = model_registry(settings).store().spec("lite")
        world.served["lite"] = lite
        await recovered_collection(world.index, world.log, lite)
        yield world
