"""Switching models while people search and pictures come and go, with and without disasters."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from adapters.embedder.triton import TritonEmbedder
from adapters.index.weaviate import WeaviateIndex
from schemas.codec import decode
from schemas.events import ModelActivated, ModelStep, SearchPerformed
from tests.conftest import run_image_search, servers_of, stack_environment
from tests.e2e.conftest import SAMPLES, System, eventually
from tests.support.tiny_model import write_layout

pytestmark = pytest.mark.timeout(600)
IMAGE_COUNT = 150
HEAL_SECONDS = 120


def image(path: Path, seed: int) -> None:
    """A small picture like no other."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 72)).save(path, quality=90)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of its own, with two more models that wait to be switched to."""
    images = tmp_path_factory.mktemp("images")
    state = tmp_path_factory.mktemp("system")
    models = tmp_path_factory.mktemp("models")
    layouts = tmp_path_factory.mktemp("layouts")
    shutil.copytree(SAMPLES / "photos", images, dirs_exist_ok=True)
    for number in range(IMAGE_COUNT):
        image(images / f"made-{number:03}.jpg", number)
    environment = {
        **stack_environment(state, images),
        "MODELS_DIR": str(models),
        "MODEL_NAME": "lite",
        # Two busy cores may need a while to start Triton again; a search waits for it.
        "OUTAGE_PATIENCE": str(HEAL_SECONDS),
        "REQUEST_TIMEOUT": str(HEAL_SECONDS + 10),
        "ADVICE_REFRESH": "2",
    }
    for seed, name in enumerate(("tiny", "other")):
        folder = write_layout(layouts / name, seed=seed, dimension=24 + 8 * seed)
        run_image_search(environment, "models", "add", name, "--from", str(folder))
    run_image_search(environment, "up", "--detach")
    try:
        yield System(servers_of(environment), images, state)
    finally:
        keep = os.environ.get("KEEP_LOGS")
        if keep:
            shutil.copytree(state / "logs", keep, dirs_exist_ok=True)
        run_image_search(environment, "down")


@dataclass
class Load:
    """What people did and saw."""

    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    changes: int = 0


@asynccontextmanager
async def load(system: System, name: str) -> AsyncIterator[Load]:
    """Searches, new pictures and deletions, without a pause."""
    seen = Load()
    folder = system.images / name
    folder.mkdir()

    async def searching(number: int) -> None:
        async with httpx.AsyncClient(
            base_url=system.gateway, timeout=HEAL_SECONDS + 20, trust_env=False
        ) as client:
            count = 0
            while True:
                count += 1
                body = {"text": f"{name} {number} {count}", "limit": 5}
                try:
                    response = await client.post("/api/v1/search-image", json=body)
                    if response.status_code == 200:
                        seen.answers.append(response.json()["model_name"])
                    else:
                        seen.failures.append(f"{response.status_code} {response.text[:300]}")
                except httpx.HTTPError as error:
                    seen.failures.append(repr(error))
                await asyncio.sleep(0.02)

    async def changing() -> None:
        while True:
            path = folder / f"{seen.changes:04}.jpg"
            await asyncio.to_thread(image, path, 10_000 + seen.changes)
            if seen.changes % 3 == 2:
                (folder / f"{seen.changes - 2:04}.jpg").unlink()
            seen.changes += 1
            await asyncio.sleep(0.15)

    tasks = [asyncio.create_task(searching(n)) for n in range(2)]
    tasks.append(asyncio.create_task(changing()))
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def command(
    system: System, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(system.servers.command, *arguments, check=check)


async def audit_is_clean(system: System) -> None:
    async def clean() -> bool:
        done = await command(system, "index", "audit", "--json", check=False)
        if not done.stdout.startswith("{"):
            return False
        found = json.loads(done.stdout)
        return bool(found["clean"]) and not found["waiting"] and found["agreed"] > IMAGE_COUNT

    await eventually(clean, seconds=HEAL_SECONDS, every=2.0)


async def assert_unmixed(system: System) -> set[str]:
    """Each recorded search names a collection that its model and version filled."""
    events = [decode(SearchPerformed, r.value) for r in await system.read_topic("searches", 20)]
    assert events
    for event in events:
        model = event.model_name.replace("-", "_")
        assert event.collection == f"Images_{model}_{event.model_version}", event
    return {event.model_name for event in events}


async def steps(system: System) -> list[tuple[str, ModelStep]]:
    records = await system.read_topic("models", 10)
    return [(e.model_name, e.step) for e in (decode(ModelActivated, r.value) for r in records)]


async def test_a_switch_under_load_fails_no_search_and_mixes_no_models(system: System) -> None:
    async with load(system, "first") as seen:
        await asyncio.sleep(2)
        done = await command(system, "models", "switch", "tiny")
        assert "tiny answers searches now" in done.stdout
        await eventually(_answered_by(seen, "tiny"), seconds=30)
        await asyncio.sleep(2)
    assert seen.failures == []
    assert {"lite", "tiny"} == set(seen.answers)
    # Once the new model answers, the old one does so no more.
    first = seen.answers.index("tiny")
    assert "lite" not in seen.answers[first + 5 :]
    await audit_is_clean(system)
    assert await assert_unmixed(system) == {"lite", "tiny"}
    assert ("tiny", ModelStep.ACTIVATED) in await steps(system)


def _answered_by(seen: Load, model: str):  # type: ignore[no-untyped-def]
    async def check() -> bool:
        return bool(seen.answers) and seen.answers[-1] == model

    return check


async def test_rollback_is_instant_and_the_old_collection_was_kept_up_to_date(
    system: System,
) -> None:
    async with load(system, "back") as seen:
        await asyncio.sleep(2)
        done = await command(system, "models", "rollback")
        assert "lite answers searches now" in done.stdout
        await eventually(_answered_by(seen, "lite"), seconds=10)
    assert seen.failures == []
    await audit_is_clean(system)
    listed = json.loads((await command(system, "models", "list", "--json")).stdout)
    states = {row["name"]: row["state"] for row in listed}
    assert (states["lite"], states["tiny"]) == ("active", "kept up to date")


async def test_low_ratings_are_reported_with_the_better_model(system: System) -> None:
    """What `lite` found first is rated badly, and what `tiny` would have found first, well."""
    embedder = TritonEmbedder(system.servers.triton_url)
    index = WeaviateIndex(system.servers.weaviate_url, grpc_port=system.servers.weaviate_grpc_port)
    async with httpx.AsyncClient(base_url=system.gateway, timeout=30, trust_env=False) as client:
        try:
            tiny = await index.ensure_collection(await embedder.spec("tiny"))
            for text in ("tennis", "coffee", "a cat", "galaxies", "a rocket", "grass", "a wall"):
                body = {"text": text, "limit": 1000}
                answer = (await client.post("/api/v1/search-image", json=body)).json()
                names = [match["image_name"] for match in answer["matches"]]
                vectors = await embedder.embed_texts("tiny", [text])
                (theirs,) = await index.search(tiny, vectors[0].tolist(), 1)
                for name, rating in {names[0]: 1, names[1]: 1, theirs.image_id: 10}.items():
                    rated = {"user_feedback": rating, "jwt": answer["jwt"], "image_name": name}
                    response = await client.post("/api/v1/create-feedback", json=rated)
                    assert response.status_code == 200, response.text
        finally:
            await index.close()
            await embedder.close()

        advice = json.loads((await command(system, "status", "--json")).stdout)["advice"]
        assert (advice["model"], advice["low"], advice["candidate"]) == ("lite", True, "tiny")
        assert advice["mean"] < 5
        assert advice["candidate_ndcg"] > advice["active_ndcg"]
        printed = " ".join((await command(system, "status")).stdout.split())
        assert "./image-search models switch tiny" in printed

        async def measured() -> bool:
            metrics = (await client.get("/metrics")).text
            return (
                'image_search_ratings_low{model="lite"} 1.0' in metrics
                and 'image_search_ratings_candidate_ndcg_gain{candidate="tiny"' in metrics
            )

        await eventually(measured, seconds=60)


async def test_a_model_that_does_not_load_leaves_the_running_one_untouched(
    system: System, tmp_path: Path
) -> None:
    folder = write_layout(tmp_path / "broken", seed=9)
    (folder / "textual" / "tokenizer.json").write_text('{"added_tokens": []}')
    await command(system, "models", "add", "broken", "--from", str(folder))
    async with load(system, "broken") as seen:
        await asyncio.sleep(1)
        done = await command(system, "models", "switch", "broken", check=False)
        assert done.returncode == 1
        assert "was not loaded" in done.stderr
        await asyncio.sleep(1)
    assert seen.failures == []
    assert set(seen.answers) == {"lite"}
    assert (await command(system, "models", "remove", "broken")).returncode == 0


async def test_a_switch_survives_its_indexer_triton_and_weaviate_being_killed(
    system: System,
) -> None:
    async with load(system, "disaster") as seen:
        switching = asyncio.create_task(command(system, "models", "switch", "other"))

        async def candidate_runs() -> bool:
            rows = system.record().processes
            return any(row.name == "indexer-other-1" and row.pid for row in rows)

        await eventually(candidate_runs, seconds=60, every=0.02)
        for victim in ("indexer-other-1", "triton", "weaviate"):
            row = system.process(victim)
            if row.pid is not None:
                psutil.Process(row.pid).kill()
            await asyncio.sleep(0.3)
        done = await switching
        assert "other answers searches now" in done.stdout
        await eventually(_answered_by(seen, "other"), seconds=HEAL_SECONDS)
        done = await command(system, "models", "rollback")
        assert "lite answers searches now" in done.stdout
        await eventually(_answered_by(seen, "lite"), seconds=HEAL_SECONDS)
    # Servers are waited for, so the disasters cost time and no answer.
    assert seen.failures == []
    assert min(system.process(name).restarts for name in ("triton", "weaviate")) >= 1
    await audit_is_clean(system)
    await assert_unmixed(system)
    await command(system, "models", "switch", "other")


async def test_a_retired_model_frees_its_resources_and_can_be_added_again(system: System) -> None:
    async with load(system, "retiring") as seen:
        done = await command(system, "models", "retire", "tiny")
        assert "is retired" in done.stdout
        refused = await command(system, "models", "retire", "other", check=False)
        assert "answers searches" in refused.stderr
    assert seen.failures == []
    async with httpx.AsyncClient(trust_env=False) as client:
        schema = (await client.get(f"{system.servers.weaviate_url}/v1/schema")).json()
        names = [each["class"] for each in schema["classes"]]
        ready = await client.get(f"{system.servers.triton_url}/v2/models/tiny_image/ready")
    assert not [name for name in names if name.startswith("Images_tiny")]
    assert ready.status_code != 200
    assert ("tiny", ModelStep.RETIRED) in await steps(system)
    await command(system, "models", "switch", "tiny")
    await audit_is_clean(system)


async def test_a_restart_keeps_the_model_that_was_switched_to(system: System) -> None:
    await command(system, "models", "switch", "other")
    await command(system, "down")
    await command(system, "up", "--detach")
    async with httpx.AsyncClient(base_url=system.gateway, timeout=30, trust_env=False) as client:
        health = (await client.get("/api/v1/healthcheck")).json()
    assert health["model_name"] == "other"
    await audit_is_clean(system)
