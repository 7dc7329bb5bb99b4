"""Adding pictures on the page, the state it shows, its keys, and whether everybody can use it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from tests.e2e.conftest import System, eventually
from tests.e2e.test_library import new_image
from tests.support.browsers import (
    answered,
    assert_accessible,
    assert_fits,
    drop,
    save_screenshot,
    search_for,
    shown,
    visit,
)
from tests.support.gateways import another_gateway
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(600)]
KEY = "a key of the page's tests"


@pytest.fixture
async def page(system: System) -> AsyncIterator[Page]:
    async with visit(system.gateway) as page:
        yield page


async def test_dropped_images_are_tracked_until_they_can_be_found(
    system: System, page: Page
) -> None:
    guitar = new_image("drawings/acoustic-guitar.jpg", quality=71)
    looked = asyncio.Event()

    async def send_later(route: Route) -> None:
        """Progress is shown for as long as sending takes, which may be too short to be seen."""
        await looked.wait()
        await route.continue_()

    await page.route("**/api/v1/images", send_later)
    try:
        await drop(page, "add", {"page guitar.jpg": guitar, "page second.jpg": guitar})
        list_ = page.locator("#upload-list")
        await expect(list_.get_by_role("progressbar").first).to_be_visible()
        looked.set()
        await expect(list_.get_by_text("can be found", exact=True)).to_have_count(2)
        await expect(page.get_by_role("heading", name="2 of 2 can be found")).to_be_visible()
        assert (system.images / "uploads/page guitar.jpg").read_bytes() == guitar
        for name in ("page guitar.jpg", "page second.jpg"):
            await expect(page.get_by_role("button", name=f"Open uploads/{name}")).to_be_visible()
        await save_screenshot(page, "page-adding")
        await list_.get_by_role("button", name="More like this: page guitar.jpg").click()
        await answered(page)
        assert "uploads/page second.jpg" in (await shown(page))[:1]
        await page.get_by_role("button", name="Start over").click()
        await search_for(page, "a guitar")
        assert "uploads/page guitar.jpg" in await shown(page)
    finally:
        # Nothing may request thumbnails of deleted images.
        await page.goto("about:blank")
        for name in ("page guitar.jpg", "page second.jpg"):
            (system.images / "uploads" / name).unlink(missing_ok=True)


async def test_uploads_with_a_taken_name_or_no_image_are_reported(system: System) -> None:
    first, second = (new_image("photos/coffee.jpg", quality=q) for q in (61, 62))
    folder = system.images / "uploads"
    try:
        async with visit(system.gateway, refused=(409, 422)) as page:
            found = page.locator("#upload-list").get_by_text("can be found", exact=True)
            await drop(page, "add", {"page taken.jpg": first})
            await expect(found).to_have_count(1)
            await drop(page, "add", {"page taken.jpg": second, "page broken.jpg": b"no picture"})
            await expect(page.locator("#upload-list .bad")).to_have_count(2)
            await expect(
                page.get_by_text("another picture has this name", exact=True)
            ).to_be_visible()
            await page.get_by_role("button", name="Keep both: page taken.jpg").click()
            await expect(found).to_have_count(2)
            assert (folder / "page taken.jpg").read_bytes() == first
            await page.get_by_role("button", name="Hide").click()
            await expect(page.locator("#uploads")).to_be_hidden()
        kept = [each.read_bytes() for each in folder.glob("page taken*.jpg")]
        assert sorted(kept) == sorted([first, second])
    finally:
        for each in folder.glob("page *.jpg"):
            each.unlink()


async def test_the_page_shows_the_state_and_why_images_failed(
    system: System, client: httpx.AsyncClient, page: Page
) -> None:
    name = "page-letters/broken.jpg"
    (system.images / name).parent.mkdir()
    (system.images / name).write_text("no picture at all\n" * 3)

    async def letter() -> dict[str, Any] | None:
        letters = (await client.get("/api/v1/dead-letters")).json()["letters"]
        return next((each for each in letters if each["image_name"] == name), None)

    found = await eventually(letter, seconds=120, every=1)
    assert found is not None
    try:

        async def reported() -> bool:
            return "failed" in await page.locator("#state").inner_text()

        await eventually(reported, seconds=60)
        text = await page.locator("#state").inner_text()
        assert "pictures" in text
        assert "model lite" in text
        await page.locator("#state").click()
        dialog = page.get_by_role("dialog", name="State of the system")
        await expect(dialog.get_by_text(name)).to_be_visible()
        await expect(dialog.get_by_text(found["reason"]).first).to_be_visible()
        await expect(dialog.get_by_text("CLIP models find more")).to_be_visible()
        await assert_accessible(page)
        await save_screenshot(page, "page-state")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#state")).to_be_focused()
        await page.get_by_role("link", name="What people search for").click()
        await page.wait_for_url("**/analytics")
    finally:
        shutil.rmtree((system.images / name).parent)
        listed = json.loads(system.servers.command("dlq", "list", "--json").stdout)
        for each in listed:
            if each["image_id"] == name:
                system.servers.command("dlq", "drop", each["letter"])


async def hidden(page: Page) -> bool:
    """Whether the notice of a change to a better model is hidden after a reload."""
    await page.reload()
    await expect(page.locator("#state")).to_contain_text("pictures")
    return not await page.locator("#model-change").is_visible()


async def test_the_change_to_a_better_model_is_followed(system: System, tmp_path: Path) -> None:
    file = AdoptionFile(tmp_path / "adoption.json")
    status = AdoptionStatus(
        model="better",
        instead_of="lite",
        step=AdoptionStep.DOWNLOADING,
        bytes_done=150_000_000,
        bytes_total=600_000_000,
    )
    file.write(status)
    path = str(tmp_path / "adoption.json")
    async with (
        another_gateway(system, tmp_path, ADOPTION_STATUS_FILE=path) as gateway,
        visit(gateway.url) as page,
    ):
        change = page.get_by_role("region", name="Change to a better model")
        await expect(
            change.get_by_text("better is being downloaded: 150 of 600 MB")
        ).to_be_visible()
        bar = change.get_by_role("progressbar", name="Progress of the change")
        await expect(bar).to_have_attribute("value", "150000000")
        await expect(change.get_by_text("./image-search models decline")).to_be_visible()
        await assert_accessible(page)
        await assert_fits(page)
        await save_screenshot(page, "page-model-change")
        # Without a reload, it follows within some seconds.
        file.write(status.model_copy(update={"problem": "no network"}))
        await expect(change.get_by_text("lite stays for now")).to_be_visible()
        file.write(status.model_copy(update={"step": AdoptionStep.DONE}))
        await page.reload()
        await expect(change.get_by_text("better answers searches now")).to_be_visible()
        await expect(bar).to_be_hidden()
        file.clear()
        await eventually(lambda: hidden(page), seconds=60, every=1)


async def test_the_page_requests_a_key_and_sends_it(system: System, tmp_path: Path) -> None:
    key = KEY.replace(" ", "-")
    async with (
        another_gateway(system, tmp_path, API_KEYS=key) as gateway,
        visit(f"{gateway.url}", refused=(401,)) as page,
    ):
        await expect(page.get_by_role("heading", name="Image search")).to_be_visible()
        await page.goto(f"{gateway.url}/?q=tennis")
        await assert_accessible(page)
        await page.get_by_label("Key or token").fill("wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_have_text(
            "This key is not valid, or has expired."
        )
        await page.get_by_label("Key or token").fill(key)
        await page.keyboard.press("Enter")
        await answered(page)
        assert page.url == f"{gateway.url}/?q=tennis"
        image = page.locator("#results img").first
        assert await image.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
        # Signed out meanwhile: the form again, then back to the search.
        await page.context.clear_cookies()
        await page.get_by_role("searchbox").fill("a cat")
        await page.keyboard.press("Enter")
        await page.get_by_label("Key or token").fill(key)
        await page.keyboard.press("Enter")
        await answered(page)
        assert (await shown(page))[0] == "photos/cat.jpg"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 900, 1600])
async def test_the_page_is_accessible_and_fits_the_screen(
    system: System, width: int, scheme: str
) -> None:
    height = {360: 740, 900: 1100, 1600: 1000}[width]
    async with visit(system.gateway, width=width, height=height, color_scheme=scheme) as page:
        await expect(page.locator("#newest .open").first).to_be_visible()
        await assert_accessible(page)
        await assert_fits(page)
        if (width, scheme) == (1600, "light"):
            await save_screenshot(page, "page-first-1600")
        await page.goto(f"{system.gateway}/?q=an+animal&w=2&q=a+bird&w=-1&weak=1")
        await answered(page)
        if scheme == "light":
            await save_screenshot(page, f"page-{width}-light")
        await page.get_by_role("button", name="Filters").click()
        await assert_accessible(page)
        await assert_fits(page)
        await page.locator("#results .open").first.click()
        await expect(page.locator("#viewer-image")).to_be_visible()
        await assert_accessible(page)
        await assert_fits(page)
        if (width, scheme) == (900, "dark"):
            await save_screenshot(page, "page-viewer-900-dark")
        await page.keyboard.press("Escape")
        await expect(page.locator("#viewer")).to_be_hidden()


async def test_the_page_can_be_used_by_keyboard_with_a_visible_focus(page: Page) -> None:
    await page.keyboard.type("tennis")
    await page.keyboard.press("Enter")
    await answered(page)
    seen: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        focus = await page.evaluate(
            """() => {
              const it = document.activeElement;
              const style = getComputedStyle(it.id === "text" ? it.closest(".box") : it);
              return [it.id || it.className, style.outlineStyle, parseFloat(style.outlineWidth)];
            }"""
        )
        assert focus[1] == "solid", focus
        assert focus[2] >= 2, focus
        seen.append(focus[0])
        if focus[0] == "open":
            break
    assert seen[-1] == "open", seen
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#results .open").nth(1)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
