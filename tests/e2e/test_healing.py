"""kill -9 of any one process: it comes back by itself, and nothing copied meanwhile is lost."""

import asyncio
import shutil

import httpx
import psutil
import pytest
from PIL import Image

from tests.e2e.conftest import System, eventually, names

HEAL_SECONDS = 90


async def is_restarted(system: System, name: str, old: int | None) -> bool:
    row = system.process(name)
    return row.pid not in (None, old) and row.state == "ready"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "victim", ["gateway", "watcher", "indexer-1", "triton", "weaviate", "kafka"]
)
async def test_a_killed_process_is_restarted_and_nothing_is_lost(
    system: System, client: httpx.AsyncClient, victim: str
) -> None:
    folder = system.images / f"during-{victim}"
    folder.mkdir()
    colours = {f"{number:02}.png": (number * 11, 255 - number * 9, 90) for number in range(20)}
    wanted = {f"during-{victim}/{name}" for name in colours}
    old = 0
    for number, (name, colour) in enumerate(colours.items()):
        if number == 5:
            old = system.kill(victim)
        Image.new("RGB", (80, 60), colour).save(folder / name)
        await asyncio.sleep(0.05)

    async def all_found() -> bool:
        return wanted <= set(await names(client, "a plain colour"))

    await eventually(lambda: is_restarted(system, victim, old), seconds=HEAL_SECONDS)
    await eventually(all_found, seconds=HEAL_SECONDS)
    assert system.process(victim).restarts >= 1
    shutil.rmtree(folder)

    async def all_gone() -> bool:
        return not wanted & set(await names(client, "a plain colour"))

    await eventually(all_gone, seconds=HEAL_SECONDS)


@pytest.mark.timeout(240)
async def test_a_killed_model_process_inside_triton_is_restarted(
    system: System, client: httpx.AsyncClient
) -> None:
    before = system.process("triton")
    assert before.pid is not None
    stubs = [
        child
        for child in psutil.Process(before.pid).children(recursive=True)
        if "stub" in child.name() or "stub" in " ".join(child.cmdline()[:1])
    ]
    assert stubs
    stubs[0].kill()
    # A colour and a text nobody has shown before, so that both encoders are needed.
    Image.new("RGB", (64, 64), (17, 91, 203)).save(system.images / "again.png")

    async def healed() -> bool:
        found = await names(client, f"coffee {asyncio.get_running_loop().time()}")
        return "again.png" in found

    await eventually(lambda: is_restarted(system, "triton", before.pid), seconds=HEAL_SECONDS)
    await eventually(healed, seconds=HEAL_SECONDS)
    (system.images / "again.png").unlink()
