"""The documentation of the HTTP API, in a real browser that can reach no other host."""

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import System
from tests.support.browsers import visit
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(300)]


async def test_the_operations_are_shown_and_can_be_tried(system: System) -> None:
    """`visit` fails when the policy blocks something or another host is requested."""
    async with visit(system.gateway) as page:
        await page.goto(f"{system.gateway}/docs")
        operations = page.locator(".opblock")
        await expect(operations.first).to_be_visible()
        assert await operations.count() >= 8
        await (
            page.locator(".opblock", has_text="/api/v1/healthcheck").locator("button").first.click()
        )
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        answer = page.locator(".live-responses-table tbody .response-col_status").first
        await expect(answer).to_contain_text("200")
