"""The launcher with real servers: one at a time, and nothing left behind however it ends."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack.record import Record, RecordFile
from tests.conftest import run_image_search, stack_environment


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    images = tmp_path / "images"
    images.mkdir()
    environment = stack_environment(tmp_path / "state", images)
    yield environment
    run_image_search(environment, "down")


def record_of(environment: dict[str, str]) -> Record:
    record = RecordFile(Path(environment["STATE_DIR"]) / "run").read()
    assert record is not None
    return record


def family(record: Record) -> list[psutil.Process]:
    """Every process of a stack, with the children that servers started themselves."""
    launcher = psutil.Process(record.launcher.pid)
    return [launcher, *launcher.children(recursive=True)]


def still_running(processes: list[psutil.Process]) -> list[str]:
    return [
        process.name()
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.timeout(1800)
def test_start_refuse_a_second_kill_the_launcher_start_again_stop(
    environment: dict[str, str],
) -> None:
    run_image_search(environment, "up", "--detach", "--servers-only")
    first = record_of(environment)
    started = family(first)
    names = {row.name for row in first.processes}
    assert names == {"kafka", "weaviate", "triton", "provision"}
    assert len(started) >= 6, "launcher, three servers, Triton's two model processes"

    second = run_image_search(environment, "up", "--detach", "--servers-only", check=False)
    assert second.returncode == 1
    assert f"already running as process {first.launcher.pid}" in second.stderr

    elsewhere = {**environment, "STATE_DIR": environment["STATE_DIR"] + "-2"}
    busy = run_image_search(elsewhere, "up", "--detach", "--servers-only", check=False)
    assert busy.returncode == 1
    printed = busy.stdout + busy.stderr
    assert f"port {environment['KAFKA_PORT']} is in use" in printed
    assert "KAFKA_PORT" in printed

    psutil.Process(first.launcher.pid).kill()
    deadline = time.monotonic() + 30
    while still_running(started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert still_running(started) == []

    run_image_search(environment, "up", "--detach", "--servers-only")
    again = family(record_of(environment))
    done = run_image_search(environment, "down")
    assert "kafka" in done.stdout
    assert still_running(again) == []
    assert "nothing was running" in run_image_search(environment, "down").stdout


def test_settings_that_make_no_sense_are_named(environment: dict[str, str]) -> None:
    done = run_image_search({**environment, "KAFKA_PORT": "many"}, "up", "--detach", check=False)
    assert done.returncode == 1
    assert "KAFKA_PORT" in done.stderr
    missing = {**environment, "IMAGES_DIR": environment["IMAGES_DIR"] + "/none"}
    done = run_image_search(missing, "up", "--detach", check=False)
    assert done.returncode == 1
    assert "IMAGES_DIR" in done.stdout + done.stderr
