"""The analytics page while there is nothing to draw, in a real browser without servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from adapters.embedder.spec import ModelSpec
from analytics.lake import Lake, LakePartition, PartitionEnd
from tests.support.browsers import assert_accessible, assert_fits, visit
from tests.support.gateway_on_fakes import gateway, served
from tests.support.lake_events import Events, records, topic_of
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(300)]


async def test_an_empty_chart_says_what_would_fill_it(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    async with (
        gateway(tmp_path, small_spec, lake_url=lake.url) as running,
        served(running.app) as url,
        visit(url, width=390, height=844, refused=(503,)) as page,
    ):
        await page.goto(f"{url}/analytics")
        await expect(page.locator("#state")).to_have_text("Nothing has been recorded yet")
        panels = page.locator(".panel")
        await expect(panels).to_have_count(14)
        for number in range(14):
            assert len(await panels.nth(number).locator("p").inner_text()) > 40
        await expect(page.locator("#rating_counts")).to_contain_text("rate the answer from 1 to 10")
        await assert_accessible(page)
        await assert_fits(page)

        # Searches arrive; nobody has rated one yet.
        messages = Events(21).messages("searches", 50)
        lake.current().append(
            topic_of("searches"), LakePartition("searches", 0), PartitionEnd(), records(messages)
        )
        await expect(page.locator("#state")).to_contain_text("Updated at")
        await expect(page.locator("#over_time p")).to_be_hidden()
        box = await page.locator("#over_time canvas").bounding_box()
        assert box
        assert box["height"] > 200
        assert box["width"] > 250
        await expect(page.locator("#rating_counts p")).to_be_visible()
        await assert_fits(page)

        await page.locator("input[name=until]").fill("2001-01-01T00:00")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#over_time p")).to_have_text(
            "Nothing of the chosen period or model."
        )
        await page.goto("about:blank")
