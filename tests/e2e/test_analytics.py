"""From a search and its rating to the analytics page, live."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import async_playwright

from tests.e2e.conftest import System, eventually, search

DASHBOARD = "/api/v1/analytics/dashboard"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


async def rate(client: httpx.AsyncClient, token: str, rating: int, image: str | None) -> None:
    body: dict[str, Any] = {"user_feedback": rating, "jwt": token}
    response = await client.post(
        "/api/v1/create-feedback", json=body if image is None else {**body, "image_name": image}
    )
    assert response.status_code == 200, response.text


async def answer_of(client: httpx.AsyncClient, text: str, limit: int) -> dict[str, Any]:
    """A search's answer, once so many pictures are indexed."""

    async def full() -> dict[str, Any] | None:
        answer = await search(client, text, limit)
        return answer if len(answer["matches"]) == limit else None

    answer = await eventually(full, seconds=120, every=0.5)
    assert answer is not None
    return answer


async def dashboard(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.get(DASHBOARD)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def from_topics(system: System) -> tuple[dict[str, Any], dict[Any, Any]]:
    """search id -> search, and the ratings that count, read with a plain client."""
    searches = {
        event["search_id"]: event
        for record in await system.read_topic("searches")
        for event in [json.loads(record.value)]
    }
    ratings = {
        (event["search_id"], event["image_name"]): event
        for record in await system.read_topic("feedback")
        for event in [json.loads(record.value)]
    }
    return searches, ratings


@pytest.mark.timeout(300)
async def test_the_page_follows_within_seconds(system: System, client: httpx.AsyncClient) -> None:
    for text in ("tennis", "tennis", "a cat", "fruit"):
        answer = await answer_of(client, text, 5)
        await rate(client, answer["jwt"], 3, None)
        await rate(client, answer["jwt"], 8, None)
        await rate(client, answer["jwt"], 9, answer["matches"][0]["image_name"])
    started = time.monotonic()

    async def same_as_topics() -> bool:
        searches, ratings = await from_topics(system)
        found = (await dashboard(client))["totals"]
        return bool(found["searches"] == len(searches) and found["ratings"] == len(ratings))

    await eventually(same_as_topics, seconds=60, every=0.5)
    print(f"live after {time.monotonic() - started:.1f} s")
    searches, ratings = await from_topics(system)
    found = await dashboard(client)
    values = [event["rating"] for event in ratings.values()]
    assert found["totals"]["mean_rating"] == pytest.approx(sum(values) / len(values))
    assert {row["rating"]: row["ratings"] for row in found["rating_counts"]} == {
        value: values.count(value) for value in set(values)
    }
    times = sorted(event["latency_ms"]["total"] for event in searches.values())
    (total,) = [row for row in found["latency"] if row["stage"] == "total"]
    assert total["searches"] == len(times)
    assert total["max_ms"] == pytest.approx(times[-1])
    indexed = await system.read_topic("images.indexed")
    assert found["totals"]["index_changes"] == len(indexed)


@pytest.mark.timeout(300)
async def test_the_commands(system: System, client: httpx.AsyncClient, tmp_path: Path) -> None:
    command = system.servers.command
    answer = await answer_of(client, "a car of the commands' test", 3)
    await rate(client, answer["jwt"], 10, answer["matches"][0]["image_name"])

    async def filed() -> bool:
        rows = json.loads(command("analytics", "sql", "FROM query_ratings", "--json").stdout)
        return any(row["text"].startswith("a car of") for row in rows)

    await eventually(filed, seconds=60, every=1)
    lines = command("analytics", "replay", "--topic", "feedback", "--from", "0").stdout
    events = [json.loads(line) for line in lines.splitlines()]
    assert any(line["event"]["text"].startswith("a car of") for line in events)
    assert command("analytics", "replay", "--topic", "feedback", "--to", "0").stdout == ""
    before = json.loads(command("analytics", "sql", "FROM totals", "--json").stdout)
    assert "searches:" in command("analytics", "rebuild").stdout
    command("analytics", "compact", "--grace", "0")
    assert json.loads(command("analytics", "sql", "FROM totals", "--json").stdout) == before
    assert "lite" in command("analytics", "metrics").stdout
    command("analytics", "export-qrels", "--to", str(tmp_path / "trec"))
    command("analytics", "export-ubi", "--to", str(tmp_path / "ubi"))
    assert (tmp_path / "trec" / "qrels.txt").read_text()
    assert (tmp_path / "ubi" / "ubi_events.ndjson").read_text()
    command("analytics", "report", "--to", str(tmp_path / "report.html"))
    assert "a car of the commands" in (tmp_path / "report.html").read_text()

    search_id = next(line["key"] for line in events if line["event"]["text"].startswith("a car of"))
    assert "2 events removed" in command("analytics", "forget", "--search", search_id).stdout
    command("analytics", "rebuild")
    rows = json.loads(command("analytics", "sql", "FROM all_searches", "--json").stdout)
    assert search_id not in {row["search_id"] for row in rows}
    for wrong in (
        ["sql", "SELECT nonsense"],
        ["replay", "--topic", "nothing"],
        ["replay", "--topic", "models", "--from", "yesterday"],
        ["forget"],
    ):
        failed = command("analytics", *wrong, check=False)
        assert failed.returncode == 1
        assert failed.stderr.startswith("error:"), failed.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
@pytest.mark.timeout(300)
async def test_the_page_in_a_browser(
    system: System, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    answer = await answer_of(client, "tennis", 5)
    await rate(client, answer["jwt"], 9, answer["matches"][0]["image_name"])

    async def filed() -> bool:
        return bool((await dashboard(client))["totals"]["ratings"])

    await eventually(filed, seconds=60, every=0.5)
    complaints: list[str] = []
    foreign: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page(viewport={"width": 1400, "height": 1900})
        page.set_default_timeout(60_000)
        page.on(
            "console", lambda said: complaints.append(said.text) if said.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                foreign.append(asked.url)
                if not asked.url.startswith((system.gateway, "data:", "blob:"))
                else None
            ),
        )
        await page.goto(f"{system.gateway}/analytics")
        await page.wait_for_selector("#totals dd")
        numbers = dict(
            zip(
                await page.locator("#totals dt").all_inner_texts(),
                await page.locator("#totals dd").all_inner_texts(),
                strict=True,
            )
        )
        found = await dashboard(client)
        assert numbers["searches"].replace(",", "") == str(found["totals"]["searches"])
        assert numbers["ratings"].replace(",", "") == str(found["totals"]["ratings"])

        # From a bar to the searches behind it to their pictures.
        await page.locator("#rating_counts canvas").scroll_into_view_if_needed()
        place = [row["rating"] for row in found["rating_counts"]].index(9)
        spot = await page.evaluate(
            "place => { const bar = Chart.getChart(document.querySelector('#rating_counts canvas'))"
            ".getDatasetMeta(0).data[place]; return {x: bar.x, y: (bar.y + bar.base) / 2}; }",
            place,
        )
        await page.locator("#rating_counts canvas").click(position=spot)
        await page.wait_for_selector("#behind-list li img")
        assert "tennis" in await page.locator("#behind-list").inner_text()
        assert "rated 9" in await page.locator("#behind-list").inner_text()
        loaded = "image => image.decode().then(() => image.naturalWidth > 0)"
        assert await page.locator("#behind-list img").first.evaluate(loaded)
        if folder := os.environ.get("SCREENSHOTS"):
            await page.evaluate("scrollTo(0, 0)")
            await page.screenshot(path=f"{folder}/analytics.png", full_page=True)

        # Nothing happened in a year long gone.
        await page.fill("input[name=until]", "2001-01-01T00:00")
        await page.click("button[type=submit]")

        async def nothing() -> bool:
            return await page.locator("#totals dd").first.inner_text() == "0"

        await eventually(nothing, seconds=30)
        assert "until=2001" in page.url

        command = system.servers.command
        command("analytics", "report", "--to", str(tmp_path / "report.html"))
        report = await browser.new_page()
        report.on("pageerror", lambda error: complaints.append(str(error)))
        await report.goto((tmp_path / "report.html").as_uri())
        await report.wait_for_selector("#totals dd")
        assert await report.locator("canvas").count() >= 6
        await browser.close()
    assert complaints == []
    assert foreign == []
