"""What people do on the page, in a real browser on the whole system."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from gateway.search.short_form import BadShortForm, parse
from tests.e2e.conftest import SAMPLES, System, eventually
from tests.e2e.test_library import new_image
from tests.support.browsers import answered, drop, search_for, shown, visit
from tests.support.programs import needs_browser

pytestmark = [needs_browser, pytest.mark.timeout(600)]
BALL, RACKET = "tuxpaint-gpl2/tennis-ball.jpg", "drawings/tennis-racket.jpg"


def query_of(page: Page) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(page.url).query)


@pytest.fixture(autouse=True)
async def samples(system: System, client: httpx.AsyncClient) -> None:
    """The sample pictures are indexed; other tests may have taken some away."""
    count = len(list(SAMPLES.rglob("*.jpg"))) * 0.8

    async def indexed() -> bool:
        state = (await client.get("/api/v1/state")).json()
        return bool(state["images"] >= count and state["waiting"] == 0)

    await eventually(indexed, seconds=180, every=1)


@pytest.fixture
async def page(system: System) -> AsyncIterator[Page]:
    async with visit(system.gateway) as page:
        yield page


async def test_an_example_is_searched_with_scores_and_back_restores_the_query(
    page: Page, client: httpx.AsyncClient
) -> None:
    await page.get_by_role("link", name="tennis", exact=True).click()
    await answered(page)
    assert query_of(page) == [("q", "tennis")]
    body = {"text": "tennis", "limit": 30, "cut_off": "auto"}
    answer = (await client.post("/api/v1/search-image", json=body)).json()
    assert await shown(page) == [match["image_name"] for match in answer["matches"]]
    scores = await page.locator("#results .score").all_inner_texts()
    assert scores == [f"{match['score']:.2f}" for match in answer["matches"]]
    first = page.locator("#results img").first
    assert await first.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    assert "tennis" in await page.title()

    await search_for(page, "a cat")
    assert (await shown(page))[0] == "photos/cat.jpg"
    await page.go_back()
    await expect(page.get_by_role("searchbox")).to_have_value("tennis")
    await expect(page.locator("#results .open").first).to_have_attribute(
        "aria-label", re.compile(BALL)
    )
    await page.go_back()
    await expect(page.locator("#examples")).to_be_visible()
    await expect(page.locator("#results .card")).to_have_count(0)
    await page.go_forward()
    await page.go_forward()
    await expect(page.get_by_role("searchbox")).to_have_value("a cat")
    await page.reload()
    await answered(page)
    assert (await shown(page))[0] == "photos/cat.jpg"


async def test_the_newest_are_shown_before_anything_is_typed(
    system: System, page: Page, client: httpx.AsyncClient
) -> None:
    counted = (await client.get("/api/v1/folders")).json()
    drawings = {each["folder"]: each["images"] for each in counted["folders"]}["drawings"]
    assert counted["root"] == system.images.name
    link = page.get_by_role("navigation", name="Where the pictures are").get_by_role(
        "link", name="drawings"
    )
    await expect(link).to_contain_text(str(drawings))
    name = "drawings/page-new.jpg"
    newest = page.locator("#newest .open").first
    try:
        (system.images / name).write_bytes(new_image("drawings/castle.jpg", quality=63))
        await expect(newest).to_have_attribute("aria-label", f"Open {name}")
        await expect(page.locator("#indexing")).to_be_hidden()
        await link.click()
        await expect(
            page.get_by_role("heading", name="Newest pictures in drawings")
        ).to_be_visible()
        await expect(page.locator("#newest .open")).to_have_count(min(drawings + 1, 30))
        await expect(newest).to_have_attribute("aria-label", f"Open {name}")
    finally:
        await page.goto("about:blank")
        (system.images / name).unlink(missing_ok=True)


async def test_terms_are_shown_as_chips_and_added_or_subtracted(page: Page) -> None:
    await search_for(page, "2:a ball + tennis")
    chips = page.get_by_role("list", name="Terms of the query").get_by_role("listitem")
    await expect(chips).to_have_count(2)
    assert query_of(page) == [("q", "a ball"), ("w", "2"), ("q", "tennis")]
    assert (await shown(page))[0] == BALL

    await page.get_by_role("button", name="tennis: added, subtract it instead").click()
    await answered(page)
    assert query_of(page)[-1] == ("w", "-1")
    assert (await shown(page))[0] != BALL
    weight = page.get_by_role("spinbutton", name="Weight of a ball")
    await weight.fill("3.5")
    await weight.press("Enter")
    await answered(page)
    assert ("w", "3.5") in query_of(page)

    await search_for(page, "- something red")
    await expect(chips).to_have_count(3)
    await page.get_by_role("button", name="Remove tennis from the query").click()
    await expect(chips).to_have_count(2)
    # The keyboard's focus stays where it was.
    await expect(page.locator(".chip .remove").nth(1)).to_be_focused()
    await page.get_by_role("searchbox").fill("dog +")
    await page.keyboard.press("Enter")
    await expect(page.locator("#message")).to_have_text("A term is missing at the end.")
    await page.get_by_role("button", name="Start over").click()
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await expect(page.locator("#examples")).to_be_visible()


async def test_an_input_error_stays_visible_when_a_search_ends(page: Page) -> None:
    typed = asyncio.Event()

    async def answer_later(route: Route) -> None:
        await typed.wait()
        await route.continue_()

    await page.route("**/api/v1/search-image", answer_later)
    await page.get_by_role("searchbox").fill("a ball")
    await page.keyboard.press("Enter")
    await expect(page.locator("#message")).to_have_text("Searching…")
    await page.get_by_role("searchbox").fill("dog +")
    await page.keyboard.press("Enter")
    typed.set()
    await expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert await shown(page)
    await expect(page.locator("#message")).to_have_text("A term is missing at the end.")
    await search_for(page, "a ball + dog")
    await expect(page.locator("#message")).to_contain_text("best first")


QUERIES = [
    "tennis", "a red  car", "2:dog + ./a.jpg - fruit", "- fruit", "+ dog", "0.5:a dog - 1.5:a cat",
    "2: dog", "black-and-white C++ a+b -x", "16:9 screen", '"rock - roll" + x', '"./not a file"',
    '2:"16:9 - screen"', "./photos/my cat.jpg", "3:./a.jpg", "time 10:30 at night", "", "  ",
    "dog +", "+", "dog + - cat", "+ + cat", "0:dog", "101:dog", '"dog', '""', "2:", "é\u00a0ß - 猫",
    " + ".join("x" * 16), " + ".join("x" * 17),
]  # fmt: skip
READ = """
async (queries) => {
  const { parse } = await import("/web/query.js");
  return queries.map((query) => {
    try {
      return parse(query).map(({ weight, text, name }) => [weight, text ?? null, name ?? null]);
    } catch (error) {
      return error.message;
    }
  });
}
"""


def read_by_gateway(query: str) -> object:
    try:
        return [
            [part.weight, part.text, part.path and part.path.removeprefix("./")]
            for part in parse(query)
        ]
    except BadShortForm as error:
        message = str(error)
        return f"{message[0].upper()}{message[1:]}."


async def test_the_page_parses_the_short_form_as_the_gateway_does(page: Page) -> None:
    read = await page.evaluate(READ, QUERIES)
    assert dict(zip(QUERIES, read, strict=True)) == {
        each: read_by_gateway(each) for each in QUERIES
    }


async def test_more_like_this_and_images_as_terms(page: Page) -> None:
    await search_for(page, "tennis")
    card = page.locator("#results .card").first
    await card.hover()
    await card.get_by_role("button", name=re.compile("More like this")).click()
    await answered(page)
    assert query_of(page) == [("like", BALL)]
    assert BALL not in await shown(page)
    await expect(page.get_by_role("button", name=f"Remove {BALL.split('/')[1]}")).to_be_visible()

    await page.locator("#results .open").first.click()
    await page.get_by_role("button", name="− Subtract").click()
    await expect(page.locator("#viewer")).to_be_hidden()
    await answered(page)
    names = [name for name, _ in query_of(page)]
    assert names == ["like", "like", "w"]
    await expect(page.locator(".chip.minus")).to_have_count(1)


async def test_a_dropped_image_is_used_for_the_search(page: Page) -> None:
    await drop(page, "search", {"my cat.jpg": (SAMPLES / "photos/cat.jpg").read_bytes()})
    await answered(page)
    assert (await shown(page))[0] == "photos/cat.jpg"
    await expect(page.locator("#results .score").first).to_have_text("1.00")
    await expect(page.locator(".chip .what")).to_have_text("my cat.jpg")
    # Of this tab alone: the address does not hold the picture.
    await page.reload()
    await expect(page.locator("#message")).to_contain_text("Choose it again")

    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Search by a picture").click()
    await (await chooser.value).set_files(SAMPLES / "drawings/castle.jpg")
    await answered(page)
    assert (await shown(page))[0] == "drawings/castle.jpg"
    await drop(page, "search", {"a.jpg": b"1", "b.jpg": b"2"})
    await expect(page.locator("#message")).to_have_text(
        "You can search by only one picture at a time."
    )


async def test_filters_narrow_the_search_and_are_in_the_url(page: Page) -> None:
    await search_for(page, "tennis")
    await page.get_by_role("checkbox", name="Good matches only").uncheck()
    await answered(page)
    await page.get_by_role("button", name="Filters").click()
    await page.get_by_label("Folder").fill("drawings")
    await page.get_by_label("Folder").press("Enter")
    await expect(page.locator("#message")).to_contain_text("within the filters")
    names = await shown(page)
    assert names[0] == RACKET
    assert all(name.startswith("drawings/") for name in names)
    assert query_of(page) == [("q", "tennis"), ("folder", "drawings"), ("weak", "1")]
    await page.reload()
    await expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
    await answered(page)
    assert await shown(page) == names

    await page.get_by_role("button", name="Filters (1)").click()
    await page.get_by_label("PNG", exact=True).check()
    await expect(page.locator("#message")).to_have_text("There is no picture within the filters.")
    await page.get_by_role("button", name="Clear the filters").click()
    await expect(page.get_by_role("button", name="Filters", exact=True)).to_be_focused()
    await answered(page)
    assert query_of(page) == [("q", "tennis"), ("weak", "1")]
    await page.get_by_label("Width from").fill("100000")
    await page.get_by_label("Width from").press("Tab")
    await expect(page.locator("#results .card")).to_have_count(0)


async def test_scrolling_loads_more_until_the_end(page: Page, client: httpx.AsyncClient) -> None:
    total = (await client.get("/api/v1/state")).json()["images"]
    await page.goto(f"{page.url}?q=a+drawing&weak=1")
    await answered(page)
    first = await page.locator("#results .card").count()
    assert 30 <= first < total
    for _ in range(60):
        await page.mouse.wheel(0, 4000)
        await page.wait_for_timeout(300)
        if await page.get_by_text("These are all.").is_visible():
            break
    names = await shown(page)
    assert len(names) == len(set(names)) == total
    await expect(page.locator("#message")).to_contain_text(f"{total} pictures for")


async def test_the_viewer(page: Page) -> None:
    await search_for(page, "tennis")
    names = await shown(page)
    await page.locator("#results .open").first.click()
    viewer = page.get_by_role("dialog")
    await expect(viewer).to_be_visible()
    await expect(page.locator("#viewer-name")).to_have_text(names[0].split("/")[1])
    details = await page.locator("#viewer-details").inner_text()
    assert "image/jpeg" in details
    assert "×" in details
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#viewer-name")).to_have_text(names[1].split("/")[1])
    await expect(page.locator("#viewer-place")).to_have_text(f"2 of {len(names)}")
    await expect(page.get_by_role("link", name="Open the original")).to_have_attribute(
        "href", f"/images/{names[1]}"
    )
    await (
        page.get_by_role("group", name=re.compile("this picture as an answer"))
        .get_by_role("button", name="9 of 10", exact=True)
        .click()
    )
    await expect(viewer.get_by_text("Thank you: your rating of 9 is saved.")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(viewer).to_be_hidden()
    await expect(page.locator("#results .open").nth(1)).to_be_focused()


async def test_an_answer_can_be_rated(system: System, page: Page) -> None:
    await search_for(page, "a rating from the page")
    if await page.locator("#results .card").count() == 0:
        await page.get_by_role("button", name="Show weaker matches too").click()
        await answered(page)
    await expect(page.locator("#results .card").first).to_be_visible()
    rating = page.get_by_role("group", name=re.compile("How good is this answer"))
    await rating.get_by_role("button", name="7 of 10").click()
    await expect(page.get_by_text("Thank you: your rating of 7 is saved.")).to_be_visible()
    await expect(rating.get_by_role("button", name="7 of 10")).to_have_attribute(
        "aria-pressed", "true"
    )
    values = [record.value for record in await system.read_topic("feedback")]
    assert any(b'"a rating from the page"' in value and b'"rating":7' in value for value in values)
