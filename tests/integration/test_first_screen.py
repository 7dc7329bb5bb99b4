"""The page before anything is typed, in a real browser on a gateway without servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.async_api import Route, expect

from adapters.embedder.spec import ModelSpec
from gateway.state import folders
from tests.support.browsers import answered, assert_accessible, assert_fits, search_for, visit
from tests.support.first_screen import Bench, first_screen, newest, shows
from tests.support.gateway_on_fakes import png
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(300)]


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    async with first_screen(tmp_path, small_spec, monkeypatch) as bench:
        yield bench


async def test_while_there_is_nothing_it_says_what_to_do(bench: Bench) -> None:
    async with visit(bench.url) as page:
        nothing = page.locator("#nothing")
        await expect(nothing).to_contain_text("No pictures yet")
        await expect(nothing).to_contain_text("into the folder images")
        await expect(page.locator("#examples")).to_be_hidden()
        await assert_accessible(page)
        async with page.expect_file_chooser() as chooser:
            await nothing.get_by_role("button", name="Add pictures").click()
        await (await chooser.value).set_files(
            {"name": "my.png", "mimeType": "image/png", "buffer": png()}
        )
        await expect(page.locator("#upload-list")).to_contain_text("my.png")

        bench.waiting[0] = 2
        await expect(nothing).to_contain_text("The first pictures are being indexed")
        await expect(page.get_by_label("Indexing: 0 of about 2 pictures")).to_be_visible()
        await bench.add("a.png", "holiday/b.png")
        bench.waiting[0] = 0
        await shows(page, ["holiday/b.png", "a.png"])
        await expect(nothing).to_be_hidden()
        await expect(page.locator("#indexing")).to_be_hidden()
        await expect(page.locator("#examples")).to_be_visible()
        await page.goto("about:blank")


async def test_pictures_join_and_go_without_reloading(bench: Bench) -> None:
    names = [f"old/{number:02}.png" for number in range(40)]
    await bench.add(*names)
    bench.waiting[0] = 3
    async with visit(bench.url) as page:
        await expect(page.get_by_role("heading", name="40 pictures, newest first")).to_be_visible()
        bar = page.get_by_role("progressbar", name="Indexing: 40 of about 43 pictures")
        await expect(bar).to_have_attribute("value", "40")
        await page.mouse.wheel(0, 20_000)
        await shows(page, names[::-1])
        await page.mouse.wheel(0, -20_000)
        await page.locator("#newest .open").nth(1).focus()

        await bench.add("new/a.png", "new/b.png", minute=100)
        await bench.gateway.index.delete(bench.gateway.collection, ["old/39.png"])
        bench.waiting[0] = 1
        await expect(page.get_by_role("heading", name="41 pictures, newest first")).to_be_visible()
        assert await newest(page) == ["new/b.png", "new/a.png", *names[-2::-1]]
        await expect(page.locator("#first-news")).to_have_text("2 new pictures.")
        # Whoever is at a picture stays there, although others were put before it.
        await expect(page.get_by_role("button", name="Open old/38.png")).to_be_focused()
        await page.goto("about:blank")


async def test_folders_are_links_that_narrow(bench: Bench) -> None:
    await bench.add("a b/1.png", "a b/c/2.png", "d/3.png", "top.png")
    async with visit(bench.url) as page:
        folders = page.get_by_role("navigation", name="Where the pictures are")
        await expect(folders.get_by_role("listitem")).to_have_text(["a b2", "d1", "elsewhere1"])
        await folders.get_by_role("link", name="a b").click()
        await expect(page.get_by_role("heading", name="Newest pictures in a b")).to_be_focused()
        await shows(page, ["a b/c/2.png", "a b/1.png"])
        assert parse_qsl(urlsplit(page.url).query) == [("folder", "a b")]
        await page.reload()
        await shows(page, ["a b/c/2.png", "a b/1.png"])
        await expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
        await expect(page.get_by_role("checkbox", name="Good matches only")).to_be_hidden()
        await folders.get_by_role("link", name="All folders").click()
        await shows(page, ["top.png", "d/3.png", "a b/c/2.png", "a b/1.png"])
        await page.go_back()
        await shows(page, ["a b/c/2.png", "a b/1.png"])
        # A search stays in the folder.
        await search_for(page, "a picture")
        assert ("folder", "a b") in parse_qsl(urlsplit(page.url).query)
        await page.goto(f"{bench.url}/?folder=nowhere")
        await expect(page.get_by_text("There is no picture within the filters.")).to_be_visible()


async def test_estimates_are_called_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SAMPLE", 100)
    monkeypatch.setattr(folders, "STEP", 50)
    await bench.add(*(f"{number % 2}/{number}.png" for number in range(123)))
    async with visit(bench.url) as page:
        await expect(page.get_by_role("heading", name="123 pictures, newest first")).to_be_visible()
        counts = page.locator("#folder-list .count")
        await expect(counts).to_have_count(2)
        for text, label in await counts.evaluate_all(
            "all => all.map((each) => [each.textContent, each.getAttribute('aria-label')])"
        ):
            assert text.startswith("≈ ")
            assert label == f"about {text.removeprefix('≈ ')} pictures"
            assert int(text.removeprefix("≈ ")) % (10 if len(text) > 4 else 1) == 0


async def test_an_empty_box_leads_back(bench: Bench) -> None:
    await bench.add("a.png", "b.png")
    async with visit(f"{bench.url}") as page:
        await shows(page, ["b.png", "a.png"])
        await page.goto(f"{bench.url}/?q=a+cat&weak=1")
        await answered(page)
        await expect(page.locator("#first")).to_be_hidden()
        await expect(page.get_by_role("searchbox")).to_have_value("a cat")
        await page.get_by_role("searchbox").fill("")
        await page.keyboard.press("Enter")
        await shows(page, ["b.png", "a.png"])
        await expect(page.locator("#results .card")).to_have_count(0)
        await page.go_back()
        await answered(page)
        await expect(page.locator("#first")).to_be_hidden()


async def test_the_viewer_shows_the_newest_without_a_rating(bench: Bench) -> None:
    await bench.add("a.png", "b.png", "c.png")
    async with visit(bench.url) as page:
        await page.locator("#newest .open").first.focus()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Enter")
        await expect(page.locator("#viewer-name")).to_have_text("b.png")
        await expect(page.locator("#viewer-rating")).to_be_hidden()
        await expect(page.locator("#viewer-details")).not_to_contain_text("Score")
        # What is new does not move the pictures while one of them is looked at.
        await bench.add("d.png", minute=10)
        await expect(page.locator("#state")).to_contain_text("4 pictures")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#viewer-name")).to_have_text("a.png")
        await page.keyboard.press("Escape")
        await shows(page, ["d.png", "c.png", "b.png", "a.png"])
        await page.locator("#newest .open").first.click()
        await page.get_by_role("button", name="More like this").click()
        await answered(page)
        assert parse_qsl(urlsplit(page.url).query) == [("like", "d.png")]


async def test_few_requests_and_another_try_after_an_outage(bench: Bench) -> None:
    await bench.add("a.png")
    asked: list[str] = []

    async def note(route: Route) -> None:
        asked.append(urlsplit(route.request.url).path)
        await route.continue_()

    async with visit(bench.url, refused=(503,)) as page:
        await page.route("**/api/**", note)
        bench.gateway.index.available = False
        await page.reload()
        await expect(page.get_by_text("The pictures could not be loaded")).to_be_visible()
        bench.gateway.index.available = True
        await shows(page, ["a.png"])
        asked.clear()
        await page.reload()
        await shows(page, ["a.png"])
        assert sorted(asked) == ["/api/v1/folders", "/api/v1/images", "/api/v1/state"]
        await page.goto("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1600])
async def test_everybody_can_use_it(bench: Bench, width: int, scheme: str) -> None:
    long = "a-folder-whose-name-is-far-too-long-for-a-narrow-window/" + "x" * 90
    await bench.add(f"{long}/1.png", "photos/2.png", "3.png", "drawings/4.png")
    bench.waiting[0] = 1000
    async with visit(bench.url, width=width, height=800, color_scheme=scheme) as page:
        await expect(page.locator("#newest .open")).to_have_count(4)
        await expect(page.locator("#indexing")).to_be_visible()
        await assert_accessible(page)
        await assert_fits(page)
        await page.get_by_role("button", name="Filters").click()
        await assert_accessible(page)
        await assert_fits(page)
        await page.goto(f"{bench.url}/?q=a+cat&q=a+dog&w=-1&weak=1")
        await answered(page)
        await assert_accessible(page)
        await assert_fits(page)
        await page.goto("about:blank")
