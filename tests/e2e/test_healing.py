"""kill -9 of any one process: it comes back by itself, and nothing copied meanwhile is lost."""

import asyncio
import shutil

import httpx
import pytest
from PIL import Image

from tests.e2e.conftest import SAMPLES, System, eventually, names

HEAL_SECONDS = 90


async def is_restarted(system: System, name: str, old: int) -> bool:
    row = system.process(name)
    return row.pid not in (None, old) and row.state == "ready"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "victim", ["gateway", "watcher", "indexer-1", "triton", "weaviate", "kafka"]
)
async def test_a_killed_process_heals_and_nothing_is_lost(
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
async def test_a_killed_model_process_inside_triton_heals(
    system: System, client: httpx.AsyncClient
) -> None:
    import psutil

    pid = system.process("triton").pid
    stubs = [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if "stub" in child.name() or "stub" in " ".join(child.cmdline()[:1])
    ]
    assert stubs
    stubs[0].kill()
    shutil.copy(SAMPLES / "photos" / "coffee.jpg", system.images / "again.jpg")

    async def healed() -> bool:
        # A text nobody asked before, so that it has to be embedded.
        found = await names(client, f"coffee {asyncio.get_running_loop().time()}")
        return "again.jpg" in found

    await eventually(healed, seconds=HEAL_SECONDS)
    (system.images / "again.jpg").unlink()
