"""What a watcher needs: a folder, and a log in memory."""

from pathlib import Path

import pytest

from adapters.memory import MemoryEventLog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def log() -> MemoryEventLog:
    return MemoryEventLog()
