"""The local Kafka's heap starts small; `KAFKA_HEAP` is its maximum."""

import sys
from pathlib import Path
from typing import Any

import pytest

from stack import processes
from stack.install import binaries, toolchains
from stack.install.preparation import Cache
from stack.settings import StackSettings
from stack.supervisor import ProcessSpec


def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> ProcessSpec:
    monkeypatch.setattr(toolchains, "java", lambda _: Path(sys.executable))
    monkeypatch.setattr(binaries, "kafka_jars", lambda _: tmp_path)
    settings = StackSettings(state_dir=tmp_path, **values)
    return processes.kafka(settings, Cache(tmp_path, lambda _: None))


def test_the_heap_grows_from_little_to_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        each
        for each in spec(tmp_path, monkeypatch, kafka_heap="300m").command
        if each.startswith(("-Xm", "-XX:MaxHeapFree"))
    ]
    assert options == ["-Xms32m", "-XX:MaxHeapFreeRatio=30", "-Xmx300m"]


def test_compaction_gets_a_buffer_that_fits_the_heap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StackSettings(state_dir=tmp_path)
    lines = processes._kafka_properties(settings, tmp_path).splitlines()
    assert "log.cleaner.dedupe.buffer.size=16777216" in lines
    assert "message.max.bytes=8388608" in lines
