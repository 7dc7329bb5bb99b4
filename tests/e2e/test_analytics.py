"""From a search and its rating to the analytics page, live."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from analytics.lake import Lake
from analytics.views import EventFilters, query
from tests.conftest import run_image_search
from tests.e2e.conftest import System, eventually, search
from tests.support.analytics_numbers import Facts, compare_dashboard
from tests.support.gateways import another_gateway
from tests.support.programs import needs_browser, running_browser

DASHBOARD = "/api/v1/analytics/dashboard"
# What the page shows, read at one moment.
DRAWN = """() => ({
  totals: Object.fromEntries([...document.querySelectorAll("#totals dt")].map(
    (term) => [term.innerText, term.nextElementSibling.innerText])),
  charts: Object.fromEntries([...document.querySelectorAll(".panel:has(canvas)")].map(
    (panel) => [panel.id,
      Chart.getChart(panel.querySelector("canvas"))?.data.datasets.map((set) => set.data)])),
})"""
BAR_OF_NINE = """() => {
  const chart = Chart.getChart(document.querySelector("#rating_counts canvas"));
  const bar = chart.getDatasetMeta(0).data[chart.data.labels.map(Number).indexOf(9)];
  return { x: bar.x, y: (bar.y + bar.base) / 2 };
}"""


async def rate(client: httpx.AsyncClient, token: str, rating: int, image: str | None) -> str:
    """Give a rating; the id of the search."""
    body: dict[str, Any] = {"user_feedback": rating, "jwt": token}
    response = await client.post(
        "/api/v1/create-feedback", json=body if image is None else {**body, "image_name": image}
    )
    assert response.status_code == 200, response.text
    return str(response.json()["search_id"])


async def answer_of(client: httpx.AsyncClient, text: str, limit: int) -> dict[str, Any]:
    """A search's answer, once it has `limit` matches."""

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


async def from_topics(system: System) -> Facts:
    """What is in the topics, read with a plain client."""
    names = ("searches", "feedback", "images.indexed", "images.dlq", "models")
    return Facts(
        {name: [record.value for record in await system.read_topic(name)] for name in names},
        Lake(str(system.state / "lake")).forgotten().searches,
    )


@pytest.mark.timeout(300)
async def test_the_dashboard_is_updated_within_seconds(
    system: System, client: httpx.AsyncClient
) -> None:
    for text in ("tennis", "tennis", "a cat", "fruit"):
        answer = await answer_of(client, text, 5)
        await rate(client, answer["jwt"], 3, None)
        await rate(client, answer["jwt"], 8, None)
        await rate(client, answer["jwt"], 9, answer["matches"][0]["image_name"])

    async def same_as_topics() -> int:
        """How many numbers are compared; other tests' events may come in between."""
        return compare_dashboard(await dashboard(client), await from_topics(system), EventFilters())

    assert await eventually(same_as_topics, seconds=60, every=0.5) > 50
    before = (await dashboard(client))["totals"]["ratings"]
    await rate(client, (await answer_of(client, "tennis", 5))["jwt"], 2, None)
    started = time.monotonic()

    async def counted() -> bool:
        return bool((await dashboard(client))["totals"]["ratings"] > before)

    await eventually(counted, seconds=30)
    print(f"live after {time.monotonic() - started:.1f} s")


@pytest.mark.timeout(300)
async def test_clients_are_pseudonymous_and_can_be_forgotten(
    system: System, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    leaves, stays = "the-key-of-one-who-leaves", "the-key-of-one-who-stays"
    settings = {"API_KEYS": f"{leaves} {stays}", "CLIENT_SALT": "of the test", "LOG_TEXTS": "false"}
    requested: dict[str, str] = {}
    async with (
        another_gateway(system, tmp_path, **settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as other,
    ):
        for key in (leaves, stays):
            other.headers["X-API-Key"] = key
            answer = await answer_of(other, "nobody's business", 3)
            requested[key] = await rate(other, answer["jwt"], 4, answer["matches"][0]["image_name"])

    lake = Lake(str(system.state / "lake"))

    def clients(table: str) -> dict[str, str]:
        """search id -> client, of the searches that were rated here."""
        found = {row["search_id"]: row for row in query(lake, f"FROM all_{table}")}
        return {name: found[name]["client"] for name in requested.values() if name in found}

    async def filed() -> bool:
        return len(clients("searches")) == len(clients("feedback")) == 2

    await eventually(filed, seconds=60, every=0.5)
    assert clients("searches") == clients("feedback")
    assert len(set(clients("searches").values())) == 2
    for topic in ("searches", "feedback"):
        written = b"".join(record.value for record in await system.read_topic(topic))
        assert clients("searches")[requested[leaves]].encode() in written
        assert not any(secret in written for secret in (b"nobody's business", leaves.encode()))

    # Numbers, and the searches behind them, do not need the texts.
    behind = await client.get(
        "/api/v1/analytics/searches", params={"text": "", "kind": "text", "rated": True}
    )
    rows = {row["search_id"]: row for row in behind.json()["searches"]}
    assert set(requested.values()) <= set(rows)
    assert [given["rating"] for given in rows[requested[stays]]["ratings"]] == [4]

    environment = {**system.servers.environment, "CLIENT_SALT": settings["CLIENT_SALT"]}
    done = run_image_search(environment, "analytics", "forget", "--who", leaves)
    assert "events removed" in done.stdout
    for _ in range(2):
        for table in ("searches", "feedback"):
            assert set(clients(table)) == {requested[stays]}
        system.servers.command("analytics", "rebuild")


@pytest.mark.timeout(300)
async def test_the_analytics_commands_use_the_lake(
    system: System, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    command = system.servers.command
    answer = await answer_of(client, "a car of the commands' test", 3)
    await rate(client, answer["jwt"], 10, answer["matches"][0]["image_name"])

    async def filed() -> bool:
        rows = json.loads(command("analytics", "sql", "FROM query_ratings", "--json").stdout)
        return any(row["text"].startswith("a car of") for row in rows)

    await eventually(filed, seconds=60, every=1)
    lines = command("analytics", "replay", "--topic", "feedback", "--from", "0").stdout
    events = [json.loads(line) for line in lines.splitlines()]
    assert any((line["event"]["text"] or "").startswith("a car of") for line in events)
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

    search_id = next(
        line["key"] for line in events if (line["event"]["text"] or "").startswith("a car of")
    )
    assert "2 events removed" in command("analytics", "forget", "--search", search_id).stdout
    command("analytics", "rebuild")
    rows = json.loads(command("analytics", "sql", "FROM all_searches", "--json").stdout)
    assert search_id not in {row["search_id"] for row in rows}
    failed = command("analytics", "sql", "SELECT nonsense", check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error:"), failed.stderr


@needs_browser
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
    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": 1400, "height": 1900})
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda printed: complaints.append(printed.text) if printed.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda requested: (
                foreign.append(requested.url)
                if not requested.url.startswith((system.gateway, "data:", "blob:"))
                else None
            ),
        )
        await page.goto(f"{system.gateway}/analytics")
        await page.wait_for_selector("#totals dd")

        async def drawn_as_served() -> tuple[list[str], int]:
            """What the page shows is the dashboard; other tests' events may come in between."""
            drawn = await page.evaluate(DRAWN)
            found = await dashboard(client)
            for total in ("searches", "ratings"):
                assert drawn["totals"][total].replace(",", "") == str(found["totals"][total])
            for panel, columns in {
                "over_time": ("searches", "without_result"),
                "latency": ("p50_ms", "p90_ms", "p95_ms", "p99_ms"),
                "rating_counts": ("ratings",),
                "ratings_by_score": ("mean_rating",),
                "ratings_by_position": ("mean_rating",),
                "ratings_by_rated_images": ("mean_rating",),
                "ratings_by_week": ("mean_rating",),
            }.items():
                rows = found[panel]
                expected = [[row[column] for row in rows] for column in columns]
                assert drawn["charts"][panel] == expected, panel
            return list(drawn["totals"]), found["totals"]["ratings"]

        labels, ratings = await eventually(drawn_as_served, seconds=60, every=0.5)

        # Live: it follows without being loaded again.
        await rate(client, answer["jwt"], 9, answer["matches"][1]["image_name"])
        shown = page.locator("#totals dd").nth(labels.index("ratings"))

        async def followed() -> bool:
            now = int((await shown.inner_text()).replace(",", ""))
            return now > ratings

        await eventually(followed, seconds=30)

        # From a bar to the searches behind it to their pictures.
        await page.locator("#rating_counts canvas").scroll_into_view_if_needed()
        spot = await page.evaluate(BAR_OF_NINE)
        await page.locator("#rating_counts canvas").click(position=spot)
        await page.wait_for_selector("#drill-down-list li img")
        assert "tennis" in await page.locator("#drill-down-list").inner_text()
        assert "rated 9" in await page.locator("#drill-down-list").inner_text()
        loaded = "image => image.decode().then(() => image.naturalWidth > 0)"
        assert await page.locator("#drill-down-list img").first.evaluate(loaded)
        if folder := os.environ.get("SCREENSHOTS"):
            await page.evaluate("scrollTo(0, 0)")
            await page.screenshot(path=f"{folder}/analytics.png", full_page=True)
            await page.set_viewport_size({"width": 360, "height": 740})
            await page.wait_for_timeout(500)
            await page.screenshot(path=f"{folder}/analytics-phone.png")
            await page.set_viewport_size({"width": 1400, "height": 1900})

        # On a phone nothing is wider than the screen.
        await page.set_viewport_size({"width": 360, "height": 740})
        width = "() => document.documentElement.scrollWidth"

        async def narrow() -> bool:
            return int(await page.evaluate(width)) <= 360

        await eventually(narrow, seconds=20)
        await page.set_viewport_size({"width": 1400, "height": 1900})

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
    assert complaints == []
    assert foreign == []
