"""An image that crashes, hangs or exhausts its decoder affects no other image."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.errors import (
    DecoderCrashed,
    DecoderMemory,
    DecoderTimeout,
    Rejected,
    Unavailable,
)
from consumers.indexing.decoding import Decoder, DecodingResult
from consumers.indexing.settings import IndexingSettings
from imaging.sandbox.pool import Sandbox
from schemas.events import ImageAdded
from tests.conftest import ROOT
from tests.support import hostile_tasks
from tests.support.corpus_cases import INDEXED, cases
from tests.unit.consumers.test_decoding import event

MEGA = 1_000_000
WAYS = [
    (hostile_tasks.SEGFAULT, DecoderCrashed, "SIGSEGV"),
    (hostile_tasks.ABORT, DecoderCrashed, "SIGABRT"),
    (hostile_tasks.KILL, DecoderCrashed, "SIGKILL"),
    (hostile_tasks.LOOP, DecoderTimeout, "more than 2 s"),
    (hostile_tasks.EAT, DecoderMemory, "memory"),
]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(2, memory_bytes=96 * MEGA, seconds=20)
    yield made
    made.close()


@pytest.fixture
async def decoder(small_spec: ModelSpec, request: pytest.FixtureRequest) -> AsyncIterator[Decoder]:
    looping = "LOOP" in request.node.name
    settings = IndexingSettings(decode_workers=2, decode_seconds=2 if looping else 60)
    with ThreadPoolExecutor(2) as pool:
        made = Decoder(small_spec, settings, pool, task=f"{hostile_tasks.MODULE}:read_and_decode")
        yield made
        made.close()


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def written(path: Path, data: bytes) -> ImageAdded:
    path.write_bytes(data)
    return event(path)


async def call(sandbox: Sandbox, function: str, *arguments: object) -> Any:
    return await sandbox.run(f"{hostile_tasks.MODULE}:{function}", *arguments)


async def gone(*processes: int) -> None:
    """Wait until these are no more."""
    async with asyncio.timeout(20):
        while any(_lives(each) for each in processes):
            await asyncio.sleep(0.02)


def _lives(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("way", "kind", "reason"), WAYS)
async def test_a_bad_image_is_refused_by_name_and_the_others_are_decoded(
    decoder: Decoder, tmp_path: Path, way: bytes, kind: type[Rejected], reason: str
) -> None:
    good = [written(tmp_path / f"{n}.png", png("green")) for n in range(10)]
    bad = written(tmp_path / "bad.png", way + png("red"))
    everything = [*good[:5], bad, *good[5:]]
    done = await asyncio.gather(*map(decoder.decode, everything), return_exceptions=True)
    refused = [
        (each, result)
        for each, result in zip(everything, done, strict=True)
        if isinstance(result, BaseException)
    ]
    ((culprit, error),) = refused
    assert culprit is bad
    assert type(error) is kind
    assert reason in str(error)
    assert (await decoder.decode(good[0])).image.width == 30


@pytest.mark.slow
async def test_odd_images_are_refused_as_they_would_be_without_workers(
    decoder: Decoder, tmp_path: Path
) -> None:
    """Some of their headers need more memory than an integer can hold."""
    for number, case in enumerate(cases()):
        work = decoder.decode(written(tmp_path / str(number), case.data))
        (done,) = await asyncio.gather(work, return_exceptions=True)
        if case.outcome == INDEXED:
            assert isinstance(done, DecodingResult), f"{case.name}: {done}"
            assert (done.image.width, done.image.height) == case.size, case.name
        else:
            assert type(done) is Rejected, f"{case.name}: {done}"
            assert case.outcome in str(done)


@pytest.mark.parametrize("memory", [1 << 40, 1 << 63, 1 << 90])
async def test_memory_needs_of_any_size_can_be_passed_to_a_worker(
    sandbox: Sandbox, memory: int
) -> None:
    assert await sandbox.run(f"{hostile_tasks.MODULE}:echo", 1, memory=memory) == 1


@pytest.mark.slow
async def test_memory_is_used_in_the_worker_and_bounded(decoder: Decoder, tmp_path: Path) -> None:
    peak = 0
    ended = False

    async def watch() -> None:
        nonlocal peak
        while not ended:
            for each in psutil.Process().children(recursive=True):
                try:
                    peak = max(peak, each.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    with pytest.raises(DecoderMemory):
        await decoder.decode(written(tmp_path / "bad.png", hostile_tasks.EAT))
    ended = True
    await watching
    assert peak < 700 * MEGA


@pytest.mark.slow
async def test_a_late_crash_is_not_attributed_to_the_next_image(sandbox: Sandbox) -> None:
    for _ in range(2):
        await asyncio.gather(call(sandbox, "spoil"), call(sandbox, "spoil"))
        assert await call(sandbox, "dies_unless_fresh") == "alone"
    assert len(sandbox.processes) <= 2


async def test_a_worker_that_died_while_idle_is_replaced(sandbox: Sandbox) -> None:
    first = await call(sandbox, "process_id")
    os.kill(first, signal.SIGKILL)
    await gone(first)
    assert await call(sandbox, "process_id") != first


@pytest.mark.slow
async def test_a_file_that_cannot_be_read_in_time_does_not_reject_the_image() -> None:
    sandbox = Sandbox(1, memory_bytes=MEGA, seconds=0.5)
    with pytest.raises(Unavailable, match="could not be read"):
        await call(sandbox, "hang_while_reading")
    sandbox.close()


async def test_workers_that_cannot_start_do_not_reject_the_image(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("imaging.sandbox.process._start", refused)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no more processes"):
            await call(sandbox, "echo", 1)
    monkeypatch.undo()
    assert await call(sandbox, "echo", 1) == 1


@pytest.mark.slow
async def test_a_workers_answer_runs_no_code_in_the_parent(sandbox: Sandbox) -> None:
    with pytest.raises(DecoderCrashed):
        await call(sandbox, "code_for_the_parent")
    assert await call(sandbox, "echo", 1) == 1


@pytest.mark.slow
async def test_arrays_of_any_size_arrive_whole(sandbox: Sandbox) -> None:
    random = np.random.default_rng(5)
    for shape in [(0,), (1,), (224, 224, 3), (2000, 3000, 3)]:
        sent = random.integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(await call(sandbox, "echo", sent), sent)
    assert await call(sandbox, "echo", b"x" * 30 * MEGA) == b"x" * 30 * MEGA


async def test_errors_of_workers_keep_their_type(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await sandbox.run("imaging.worker_tasks:media_type", tmp_path / "none", 100, 100)
    with pytest.raises(Rejected, match="supported format"):
        await sandbox.run("imaging.worker_tasks:media_type", b"none", 100, 100)
    with pytest.raises(AttributeError):
        await call(sandbox, "no_such_function")
    assert len(sandbox.processes) == 1


async def test_a_worker_whose_task_is_cancelled_is_ended(sandbox: Sandbox, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    work = asyncio.create_task(call(sandbox, "process_id_after", 300.0, mark))
    begun = Path(f"{mark}.begun")
    async with asyncio.timeout(20):
        while not (begun.exists() and begun.read_text()):
            await asyncio.sleep(0.02)
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    await gone(int(begun.read_text()))
    assert await call(sandbox, "echo", 1) == 1


async def test_workers_inherit_no_socket(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "open").open("wb"):
        server.set_inheritable(True)
        number = str(Path(f"/proc/self/fd/{server.fileno()}").readlink())
        held = await call(sandbox, "open_sockets")
    assert number not in held
    assert str(tmp_path / "open") not in held
    assert sum(name.startswith("socket:") for name in held) == 1


@pytest.mark.slow
async def test_a_signal_to_the_process_group_lets_work_finish(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    work = asyncio.create_task(call(sandbox, "process_id_after", 1.0, mark))
    async with asyncio.timeout(20):
        while not Path(f"{mark}.begun").exists():
            await asyncio.sleep(0.02)
    ours = psutil.Process().children(recursive=True)
    for each in ours:
        each.terminate()
    assert await work in [each.pid for each in ours]
    assert await call(sandbox, "echo", 1) == 1


@pytest.mark.slow
async def test_idle_workers_end(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.sandbox.pool.IDLE_SECONDS", 0.1)
    process = await call(sandbox, "process_id")
    await gone(process)
    async with asyncio.timeout(20):
        while sandbox.processes:
            await asyncio.sleep(0.02)
    assert await call(sandbox, "echo", 1) == 1


async def test_work_cancelled_by_close_raises_unavailable(sandbox: Sandbox, tmp_path: Path) -> None:
    work = asyncio.create_task(call(sandbox, "process_id_after", 300.0, tmp_path / "mark"))
    async with asyncio.timeout(20):
        while not (tmp_path / "mark.begun").exists():
            await asyncio.sleep(0.02)
    sandbox.close()
    with pytest.raises(Unavailable):
        await work


PARENT = """
import asyncio, os, sys
from pathlib import Path
from imaging.sandbox.pool import Sandbox

async def main():
    sandbox = Sandbox(2, memory_bytes=10**8, seconds=3)
    task = "tests.support.hostile_tasks:" + sys.argv[1]
    busy = asyncio.create_task(sandbox.run(task, *eval(sys.argv[2])))
    await sandbox.run("tests.support.hostile_tasks:echo", 1)
    await asyncio.sleep(0.3)
    print(*sandbox.processes, flush=True)
    await busy

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "arguments"), [("hang_while_reading", "()"), ("media_type", "(b'LOOP', 1, 1)")]
)
async def test_workers_end_with_their_parent(tmp_path: Path, function: str, arguments: str) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(tmp_path / "parent.py"),
        function,
        arguments,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    processes = [int(word) for word in (await parent.stdout.readline()).split()]
    assert len(processes) == 2
    parent.kill()
    await parent.wait()
    await gone(*processes)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["consumers.indexing.app", "gateway.app", "producers.app"])
def test_decoders_are_not_even_loaded_outside_of_workers(module: str) -> None:
    script = f"import {module}, sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded.isdisjoint({"PIL", "pyvips", "rawpy", "pillow_heif", "pillow_jxl"})


async def test_a_worker_starts_in_little_time_and_memory(sandbox: Sandbox) -> None:
    """What it needs is loaded already, and shared."""
    process = await call(sandbox, "process_id")
    loaded = await call(sandbox, "modules")
    assert {"PIL.Image", "rawpy", "pyvips", "imaging.worker_tasks"} <= set(loaded)
    assert psutil.Process(process).memory_full_info().uss < 60 * MEGA
