"""The page when answers come late, or pictures have gone: in a browser, without servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.async_api import Error, Page, Route, expect

from adapters.embedder.spec import ModelSpec
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from tests.support.browsers import answered, assert_accessible, search_for, shown, visit
from tests.support.first_screen import Bench, first_screen, newest, shows
from tests.support.gateway_on_fakes import png
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(300)]
STARTED_MS = 300
"""Time for what must not happen to happen."""
READ_LATER = """
const read = FileReader.prototype.readAsDataURL;
FileReader.prototype.readAsDataURL = function (file) {
  window.readNow = () => read.call(this, file);
};
"""


@pytest.fixture
def adoption(tmp_path: Path) -> AdoptionFile:
    return AdoptionFile(tmp_path / "adoption.json")


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    file = tmp_path / "adoption.json"
    async with first_screen(
        tmp_path, small_spec, monkeypatch, adoption_status_file=file
    ) as running:
        yield running


class Held:
    """Holds the first request that meets a condition until it is released."""

    def __init__(self, wanted: Callable[[Route], bool] = lambda _: True) -> None:
        self._wanted = wanted
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        """Pass a request on, or hold it."""
        if not self.arrived.is_set() and self._wanted(route):
            self.arrived.set()
            await self.released.wait()
        with contextlib.suppress(Error):  # The page has aborted it.
            await route.continue_()


@pytest.mark.parametrize("path", ["images", "folders"])
@pytest.mark.parametrize("added", [("a/1.png", "b/2.png"), ()], ids=["pictures", "nothing"])
async def test_a_search_before_the_first_screen_is_there(
    bench: Bench, path: str, added: tuple[str, ...]
) -> None:
    await bench.add(*added)
    held = Held()
    async with visit(bench.url) as page:
        await page.goto(f"{bench.url}/?q=a+dog&weak=1")
        await expect(page.locator("#state")).to_contain_text("picture")
        await page.route(f"**/api/v1/{path}?**", held)
        box = page.get_by_role("searchbox")
        await box.fill("")
        await box.press("Enter")
        await held.arrived.wait()
        await box.fill("a cat")
        await box.press("Enter")
        await expect(page.locator("#first")).to_be_hidden()
        held.released.set()
        await page.wait_for_timeout(STARTED_MS)
        await page.go_back()
        if added:
            heading = page.get_by_role("heading", name="2 pictures, newest first")
            await expect(heading).to_be_visible()
            folders = page.get_by_role("navigation", name="Where the pictures are")
            await expect(folders.get_by_role("listitem")).to_have_text(["a1", "b1"])
            await shows(page, ["b/2.png", "a/1.png"])
        else:
            await expect(page.locator("#nothing")).to_contain_text("No pictures yet")
        await expect(page.locator("#newest")).not_to_have_attribute("aria-busy", "true")


async def test_a_newer_search_is_not_replaced_by_an_older_one(bench: Bench) -> None:
    await bench.add("a.png")
    held = Held()
    async with visit(bench.url) as page:
        await page.route("**/api/v1/search-image", held)
        await page.get_by_role("searchbox").fill("first")
        await page.get_by_role("searchbox").press("Enter")
        await held.arrived.wait()
        await search_for(page, "second")
        held.released.set()
        await page.wait_for_timeout(STARTED_MS)
        await expect(page.locator("#message")).to_contain_text("“second”")


async def test_an_older_state_does_not_replace_a_newer_one(bench: Bench) -> None:
    await bench.add("a.png")
    old, released = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        response = await route.fetch()
        if not old.is_set():
            old.set()
            await released.wait()
        await route.fulfill(response=response)

    async with visit(bench.url) as page:
        await page.route("**/api/v1/state", late)
        await page.reload()
        await old.wait()
        await bench.add("b.png", minute=1)
        await page.locator("#state").click()
        await expect(page.locator("#state")).to_contain_text("2 pictures")
        released.set()
        await page.wait_for_timeout(STARTED_MS)
        await expect(page.locator("#state")).to_contain_text("2 pictures")
        await page.goto("about:blank")


async def test_the_last_rating_is_the_one_that_is_shown(bench: Bench) -> None:
    await bench.add("a.png")
    held = Held()
    async with visit(bench.url) as page:
        await page.goto(f"{bench.url}/?q=a+cat&weak=1")
        await answered(page)
        await page.route("**/api/v1/create-feedback", held)
        rating = page.locator("#rating")
        await rating.get_by_role("button", name="3 of 10").click()
        await held.arrived.wait()
        await rating.get_by_role("button", name="7 of 10").click()
        await expect(rating).to_contain_text("your rating of 7 is saved")
        held.released.set()
        await page.wait_for_timeout(STARTED_MS)
        await expect(rating).to_contain_text("your rating of 7 is saved")


async def test_a_file_that_is_read_slowly_replaces_no_later_search(bench: Bench) -> None:
    await bench.add("a.png")
    async with visit(bench.url) as page:
        await page.add_init_script(READ_LATER)
        await page.reload()
        await page.locator("#by-file").set_input_files(
            {"name": "my.png", "mimeType": "image/png", "buffer": png()}
        )
        await page.wait_for_function("window.readNow !== undefined")
        await search_for(page, "a cat")
        await page.evaluate("window.readNow()")
        await page.wait_for_timeout(STARTED_MS)
        assert ("q", "a cat") in parse_qsl(urlsplit(page.url).query)


async def test_the_viewer_stays_where_the_user_went_meanwhile(bench: Bench) -> None:
    await bench.add(*(f"{number:02}.png" for number in range(40)))
    refused = asyncio.Event()
    held = Held()

    async def refuse_then_hold(route: Route) -> None:
        if refused.is_set():
            await held(route)
        else:
            refused.set()
            await route.fulfill(status=503, json={"detail": "not now"})

    async with visit(bench.url, refused=(503,)) as page:
        await page.route("**/api/v1/images?**cursor=**", refuse_then_hold)
        await page.reload()
        await page.locator("#newest .open").nth(29).scroll_into_view_if_needed()
        await expect(page.get_by_text("More could not be loaded")).to_be_visible()
        await page.locator("#newest .open").nth(29).click()
        await expect(page.locator("#viewer-name")).to_have_text("10.png")
        await page.keyboard.press("ArrowRight")
        await held.arrived.wait()
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#viewer-name")).to_have_text("11.png")
        held.released.set()
        await expect(page.locator("#newest .open")).to_have_count(40)
        await expect(page.locator("#viewer-name")).to_have_text("11.png")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#viewer-name")).to_have_text("09.png")


async def gone(page: Page, *names: str) -> None:
    """Answer 404 for the thumbnails of these pictures, and load the page again."""
    for name in names:
        await page.route(f"**/thumbnails/{name}?**", lambda route: route.fulfill(status=404))
    await page.reload()


async def test_cards_of_deleted_pictures_go(bench: Bench) -> None:
    await bench.add("a.png", "b.png", "c.png")
    async with visit(bench.url, refused=(404,)) as page:
        await gone(page, "b.png")
        await shows(page, ["c.png", "a.png"])
        await page.goto(f"{bench.url}/?q=a+cat&weak=1")
        await expect(page.locator("#message")).to_contain_text("2 pictures for “a cat”")
        assert sorted(await shown(page)) == ["a.png", "c.png"]


async def test_pictures_of_a_folder_that_is_away_do_not_load_the_whole_collection(
    bench: Bench,
) -> None:
    await bench.add(*(f"{number:03}.png" for number in range(100)))
    asked: list[str] = []
    async with visit(bench.url, refused=(404,)) as page:
        page.on("request", lambda each: asked.append(urlsplit(each.url).path))
        await gone(page, "*.png")
        await expect(page.locator("#newest .no-preview").first).to_be_visible()
        await page.wait_for_timeout(STARTED_MS)
        assert 0 < len(await newest(page)) <= 70
        assert asked.count("/api/v1/images") <= 3


async def test_the_viewer_says_that_a_picture_has_gone(bench: Bench) -> None:
    await bench.add("a.png", "b.png", "c.png")
    async with visit(bench.url, refused=(404,)) as page:
        await shows(page, ["c.png", "b.png", "a.png"])
        await page.route("**/thumbnails/b.png?size=1024", lambda route: route.fulfill(status=404))
        await page.get_by_role("button", name="Open b.png").click()
        await expect(page.get_by_alt_text("b.png does not exist any more")).to_be_visible()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#viewer-name")).to_have_text("a.png")
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#viewer-name")).to_have_text("c.png")
        await page.keyboard.press("Escape")
        await shows(page, ["c.png", "a.png"])
        await expect(page.get_by_role("button", name="Open c.png")).to_be_focused()


async def test_the_notice_of_another_model(bench: Bench, adoption: AdoptionFile) -> None:
    name = "<img src=x onerror=alert(1)>"
    status = AdoptionStatus(
        model=name, instead_of="lite", step=AdoptionStep.DOWNLOADING, bytes_total=600_000_000
    )
    adoption.write(status)
    await bench.add("a.png")
    async with visit(bench.url) as page:
        notice, news = page.locator("#model-change"), page.locator("#model-change-news")
        await expect(notice).to_contain_text(f"{name} is being downloaded: 0 of 600 MB")
        assert await notice.locator("img").count() == 0
        await expect(news).to_have_attribute("role", "status")
        await expect(news).to_contain_text("is being downloaded: 0 of 600 MB")
        await assert_accessible(page)

        adoption.write(status.model_copy(update={"bytes_done": 300_000_000}))
        await page.locator("#state").click()
        await expect(notice).to_contain_text("300 of 600 MB")
        # Each step is announced once, not how far it is.
        await expect(news).to_contain_text(": 0 of 600 MB")
        adoption.write(status.model_copy(update={"step": AdoptionStep.DONE}))
        await page.keyboard.press("Escape")
        await page.locator("#state").click()
        await expect(news).to_contain_text("answers searches now")

        adoption.clear()
        await page.keyboard.press("Escape")
        await page.locator("#state").click()
        await expect(notice).to_be_hidden()
        await expect(news).to_be_empty()
