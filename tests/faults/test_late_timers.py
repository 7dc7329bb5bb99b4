"""A late timer or a suspended machine is not blamed on an image."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.errors import DecoderTimeout
from imaging.sandbox.pool import Sandbox
from imaging.sandbox.process import SandboxProcess
from tests.support import hostile_tasks

MEGA = 1_000_000
AFTER = f"{hostile_tasks.MODULE}:process_id_after"
PROCESS_ID = f"{hostile_tasks.MODULE}:process_id"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(1, memory_bytes=96 * MEGA, seconds=60)
    yield made
    made.close()


async def only(sandbox: Sandbox) -> SandboxProcess:
    """Its process, which is there and has done something."""
    await sandbox.run(PROCESS_ID)
    (process,) = sandbox._all
    return process


async def begun(mark: Path) -> int:
    file = Path(f"{mark}.begun")
    async with asyncio.timeout(20):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0)
    return int(file.read_text())


def until_answered(process: SandboxProcess) -> None:
    """Keep the loop busy until the answer is there, to be read."""
    assert select.select([process._connection], [], [], 20)[0]


@pytest.mark.slow
async def test_an_answer_that_arrives_with_its_timeout_is_delivered(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await only(sandbox)
    slow = asyncio.create_task(sandbox.run(AFTER, 0.3, tmp_path / "mark"))
    next_task = asyncio.create_task(sandbox.run(PROCESS_ID))
    await begun(tmp_path / "mark")
    until_answered(process)
    loop = asyncio.get_running_loop()
    now = loop.time
    with monkeypatch.context() as later:
        later.setattr(loop, "time", lambda: now() + 100)
        answer = await slow
    assert answer == process.pid
    # Nor is the process ended that has answered.
    assert await next_task == process.pid


@pytest.mark.slow
async def test_a_late_timer_does_not_fail_the_next_task(sandbox: Sandbox, tmp_path: Path) -> None:
    process = await only(sandbox)
    slow = asyncio.create_task(sandbox.run(AFTER, 0.3, tmp_path / "mark"))
    next_task = asyncio.create_task(sandbox.run(PROCESS_ID))
    await begun(tmp_path / "mark")
    until_answered(process)
    process._on_timeout()
    assert await slow == process.pid
    assert await next_task != process.pid


@pytest.mark.slow
async def test_a_task_whose_worker_was_suspended_is_repeated(
    tmp_path: Path,
) -> None:
    sandbox = Sandbox(1, memory_bytes=96 * MEGA, seconds=3)
    work = asyncio.create_task(sandbox.run(AFTER, 0.5, tmp_path / "mark"))
    stopped = await begun(tmp_path / "mark")
    os.kill(stopped, signal.SIGSTOP)
    assert await work != stopped
    sandbox.close()


@pytest.mark.slow
async def test_a_task_that_never_ends_is_refused_after_a_second_attempt(tmp_path: Path) -> None:
    sandbox = Sandbox(1, memory_bytes=96 * MEGA, seconds=1)
    first = await sandbox.run(PROCESS_ID)
    with pytest.raises(DecoderTimeout):
        await sandbox.run(AFTER, 600.0, tmp_path / "mark")
    assert await begun(tmp_path / "mark") != first
    sandbox.close()
