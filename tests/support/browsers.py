"""Headless Chromium on the page, and checks that apply to every visit."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import ConsoleMessage, Page, expect

from tests.support.programs import running_browser

PATIENCE_MS = 60_000

DROP = """
([zone, files]) => {
  const data = new DataTransfer();
  for (const [name, type, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    data.items.add(new File([bytes], name, { type }));
  }
  const fire = (target, kind) =>
    target.dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }),
    );
  fire(document.body, "dragenter");
  const target = document.querySelector(`[data-zone="${zone}"]`);
  if (!target.checkVisibility()) throw new Error("the zone is not shown");
  fire(target, "dragover");
  fire(target, "drop");
}
"""


async def _settled(url: str) -> None:
    """Wait until the newest pictures have thumbnails: a file may be gone, and still be indexed."""
    ending = time.monotonic() + PATIENCE_MS / 1000
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        while time.monotonic() < ending:
            listed = await client.get("/api/v1/images")
            if not listed.is_success:
                return
            names = [quote(image["image_name"]) for image in listed.json()["images"]]
            for name in names:
                if not (await client.get(f"/thumbnails/{name}?size=512")).is_success:
                    await asyncio.sleep(1)
                    break
            else:
                return


@asynccontextmanager
async def visit(
    url: str, *, width: int = 1280, height: int = 900, refused: Sequence[int] = (), **context: Any
) -> AsyncIterator[Page]:
    """A page of this gateway; fails on console errors and requests to other hosts.

    `refused` are the statuses that the visit brings about, which Chromium logs as errors.
    """
    expect.set_options(timeout=PATIENCE_MS)
    complaints: list[str] = []
    foreign: list[str] = []

    def printed(message: ConsoleMessage) -> None:
        known = any(f"with a status of {status}" in message.text for status in refused)
        if message.type in ("error", "warning") and not known:
            complaints.append(f"{message.text} ({message.location})")

    await _settled(url)
    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": width, "height": height}, **context)
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", printed)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda requested: (
                None
                if requested.url.startswith((f"{url}/", "about:", "data:", f"blob:{url}"))
                else foreign.append(requested.url)
            ),
        )
        await page.goto(url)
        yield page
    assert not complaints, complaints
    assert not foreign, foreign


async def search_for(page: Page, text: str) -> None:
    """Type into the box and search."""
    await page.get_by_role("searchbox").fill(text)
    await page.get_by_role("searchbox").press("Enter")
    await answered(page)


async def answered(page: Page) -> None:
    """Wait until an answer is shown."""
    await expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    await expect(page.locator("#message")).to_contain_text("for “")


async def shown(page: Page) -> list[str]:
    """The names of the pictures in the grid, in order."""
    labels = await page.locator("#results .open").evaluate_all(
        "all => all.map((each) => each.getAttribute('aria-label'))"
    )
    return [label.removeprefix("Open ").rpartition(", score ")[0] for label in labels]


async def drop(page: Page, zone: str, files: dict[str, bytes]) -> None:
    """Drag files onto the page and drop them on the zone `search` or `add`."""
    listed = [[name, "image/jpeg", base64.b64encode(data).decode()] for name, data in files.items()]
    await page.evaluate(DROP, [zone, listed])


async def assert_accessible(page: Page) -> None:
    """axe-core finds no violation of WCAG 2.2 AA or of its own best practices."""
    result = await Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


async def assert_fits(page: Page) -> None:
    """No element is wider than the window."""
    inner, scrolled = await page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scrolled <= inner, (scrolled, inner)


async def save_screenshot(page: Page, name: str, **options: Any) -> None:
    """Save a screenshot for the documentation if `SCREENSHOTS` names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.wait_for_load_state("networkidle")
        await page.screenshot(
            path=f"{folder}/{name}.jpg", type="jpeg", quality=82, animations="disabled", **options
        )
