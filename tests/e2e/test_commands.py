"""The operator's commands."""

import json
import re
from typing import Any

import httpx

from tests.e2e.conftest import SAMPLES, System, eventually


async def test_status_lists_processes_and_their_progress(system: System) -> None:
    async def caught_up() -> Any:
        status = json.loads(system.servers.command("status", "--json").stdout)
        answers = all(status["servers"].values())
        settled = answers and status["lag"] == 0 and status["watcher"]["state"] == "watching"
        return status if settled else None

    status = await eventually(caught_up, seconds=60, every=1)
    states = {row["name"]: row["state"] for row in status["processes"]}
    assert states.pop("provision") == "done"
    assert set(states) == {
        "kafka",
        "weaviate",
        "triton",
        "indexer-1",
        "watcher",
        "analytics",
        "gateway",
    }
    assert set(states.values()) == {"ready"}
    assert status["servers"] == {"kafka": True, "weaviate": True, "triton": True}
    assert status["gateway"]["status"] == "ok"
    assert "behind the log" in system.servers.command("status").stdout


async def test_the_index_agrees_with_the_log(system: System) -> None:
    async def agrees() -> bool:
        done = system.servers.command("index", "audit", "--json", check=False)
        return done.returncode == 0 and json.loads(done.stdout)["clean"]

    await eventually(agrees, seconds=60, every=1)


async def test_the_watcher_compares_on_request(system: System, client: httpx.AsyncClient) -> None:
    images = [p for p in SAMPLES.rglob("*") if p.suffix in (".jpg", ".png")]
    await eventually(lambda: indexed(client, len(images)), seconds=60)
    reported = system.servers.command("index", "reconcile").stdout
    assert re.search(r"watching: \d+ pictures known, 0 published, 0 removed", reported)
    assert "requested" in system.servers.command("index", "reconcile", "--no-wait").stdout


async def indexed(client: httpx.AsyncClient, count: int) -> bool:
    health = (await client.get("/api/v1/healthcheck")).json()
    return int(health["images"]) >= count


async def test_search_from_the_terminal(system: System, client: httpx.AsyncClient) -> None:
    done = system.servers.command("search", "tennis", "-n", "1")
    assert "tennis" in done.stdout
    assert "model: lite" in done.stdout
    answer = json.loads(system.servers.command("search", "tennis", "--json").stdout)
    assert len(answer["matches"]) == 10
    assert "cut off at" in system.servers.command("search", "tennis").stdout
    assert (
        "cut off at" not in system.servers.command("search", "tennis", "--cut-off", "none").stdout
    )
    bad = system.servers.command("search", " ", check=False)
    assert bad.returncode == 1
    assert "must not be blank" in bad.stderr


async def test_combined_queries_and_images_in_the_terminal(
    system: System, client: httpx.AsyncClient
) -> None:
    wait_for = {"image_name": "photos/cat.jpg", "timeout_s": 60}
    body = {"text": "a cat", "wait_for": wait_for}
    waited = await client.post("/api/v1/search-image", json=body, timeout=90)
    assert waited.status_code == 200, waited.text
    combined = "2:a ball + ./photos/cat.jpg - tennis"
    answer = json.loads(
        system.servers.command("search", combined, "--json", "--folder", "photos").stdout
    )
    assert answer["text"] == combined
    assert all(match["image_name"].startswith("photos/") for match in answer["matches"])
    shown = system.servers.command("search", "a cat", "-n", "1", "--pictures").stdout
    assert "▀" in shown
    unfinished = system.servers.command("search", "dog +", check=False)
    assert (unfinished.returncode, "a term is missing" in unfinished.stderr) == (1, True)


async def test_logs_are_shown(system: System) -> None:
    assert "Uvicorn" in system.servers.command("logs", "gateway").stdout
    missing = system.servers.command("logs", "nobody", check=False)
    assert missing.returncode == 1
    assert "watcher" in missing.stderr
