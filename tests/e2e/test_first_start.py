"""A first start moves from `lite` to a better model by itself, while people search."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from stack.settings import PREFERRED_MODEL, StackSettings
from tests.conftest import run_image_search, servers_of, stack_environment
from tests.e2e.conftest import SAMPLES, System, eventually
from tests.support.hub_server import Hub, hub
from tests.support.tiny_model import write_layout

pytestmark = pytest.mark.timeout(600)
PIECE = 10 * 1024 * 1024
"""What the library writes at once."""


def prepared_cache(folder: Path) -> Path:
    """A cache of its own with the servers of the shared one, as models must not go into that."""
    run_image_search({}, "prepare")
    for each in StackSettings().cache.iterdir():
        if not each.name.startswith(".") and each.name not in ("models", "hub"):
            (folder / each.name).symlink_to(each)
    return folder


@asynccontextmanager
async def searching(system: System) -> AsyncIterator[tuple[list[str], list[str]]]:
    """Searches without a pause: the models that answered, and the failures."""
    answers: list[str] = []
    failures: list[str] = []

    async def search() -> None:
        async with httpx.AsyncClient(
            base_url=system.gateway, timeout=60, trust_env=False
        ) as client:
            while True:
                body = {"text": f"tennis {len(answers)}", "limit": 5}
                response = await client.post("/api/v1/search-image", json=body)
                if response.status_code == 200 and response.json()["matches"] is not None:
                    answers.append(response.json()["model_name"])
                else:
                    failures.append(f"{response.status_code} {response.text[:300]}")
                await asyncio.sleep(0.05)

    task = asyncio.create_task(search())
    try:
        yield answers, failures
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


def adoption(system: System) -> dict[str, Any]:
    status = json.loads(system.servers.command("status", "--json", check=False).stdout)
    found: dict[str, Any] = status["adoption"] or {}
    return found


async def test_a_first_start_ends_on_the_better_model_without_a_command(tmp_path: Path) -> None:
    """The download is killed, and stopped by a restart, before it is complete."""
    images = tmp_path / "images"
    shutil.copytree(SAMPLES / "photos", images)
    (tmp_path / "cache").mkdir()
    layout = write_layout(tmp_path / "repository")
    (layout / "textual" / "model.onnx.data").write_bytes(os.urandom(4 * PIECE))
    with hub(layout) as server:
        environment = {
            **stack_environment(tmp_path / "state", images),
            "CACHE_DIR": str(prepared_cache(tmp_path / "cache")),
            "HF_ENDPOINT": server.url,
        }
        del environment["MODEL_NAME"]
        server.hold_after = PIECE + 1000
        started = run_image_search(environment, "up", "--detach")
        assert "in the background" in started.stdout
        system = System(servers_of(environment), images, tmp_path / "state")
        try:
            await goes_on_after_kill_and_restart(system, server)
            async with searching(system) as (answers, failures):
                await asyncio.sleep(1)
                server.released.set()

                async def answered() -> bool:
                    return bool(answers) and answers[-1] == PREFERRED_MODEL

                await eventually(answered, seconds=120)
                await asyncio.sleep(1)
            assert failures == []
            assert list(dict.fromkeys(answers)) == ["lite", PREFERRED_MODEL]
            assert all(not each.startswith("bytes=0") for each in server.ranges)
            await ends_well(system)
        finally:
            if keep := os.environ.get("KEEP_LOGS"):
                shutil.copytree(tmp_path / "state" / "logs", keep, dirs_exist_ok=True)
            run_image_search(environment, "down")


async def killed(system: System) -> bool:
    """Kill the process that makes the change; false while there is none, between two attempts."""
    for row in system.record().processes:
        if row.name == "adoption" and row.pid is not None:
            psutil.Process(row.pid).kill()
            return True
    return False


async def goes_on_after_kill_and_restart(system: System, server: Hub) -> None:
    """The process is killed after one piece, and the stack is restarted after a second one."""
    for pieces in (1, 2):

        async def arrived(least: int = pieces * PIECE) -> bool:
            return int(adoption(system).get("bytes_done", 0)) >= least

        await eventually(arrived, seconds=60, every=0.5)
        async with httpx.AsyncClient(base_url=system.gateway, trust_env=False) as client:
            state = (await client.get("/api/v1/state", timeout=30)).json()
        change = state["model_change"]
        assert (state["model_name"], change["step"]) == ("lite", "downloading")
        assert (change["model"], change["total"] > 4 * PIECE) == (PREFERRED_MODEL, True)
        assert "models decline" in change["decline"]
        if pieces == 1:
            server.hold_after = 2 * PIECE + 1000
            await eventually(lambda: killed(system), seconds=60, every=0.2)
    printed = " ".join(system.servers.command("status").stdout.split())
    assert f"{PREFERRED_MODEL} is being downloaded: " in printed
    system.servers.command("down")
    system.servers.command("up", "--detach")
    assert server.ranges


async def ends_well(system: System) -> None:
    """Each step was said, nothing is left behind, and the collection is complete."""

    async def done() -> bool:
        return str(adoption(system).get("step")) == "done"

    await eventually(done, seconds=30, every=0.5)
    log = (system.state / "logs" / "stack.log").read_text()
    for words in ("being downloaded", "converted", "its collection is being filled"):
        assert f"{PREFERRED_MODEL} is" in log
        assert words in log
    assert f"{PREFERRED_MODEL} answers searches now" in log
    assert "adoption" not in [row.name for row in system.record().processes]
    audit = json.loads(system.servers.command("index", "audit", "--json", check=False).stdout)
    assert (audit["clean"], audit["agreed"] > 0) == (True, True)
