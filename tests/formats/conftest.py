"""What a watcher needs: a folder, and a log in memory."""

from pathlib import Path

import pytest

from adapters.log.fake import FakeEventLog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def log() -> FakeEventLog:
    return FakeEventLog()
