"""The page that shows both models' pictures, as a browser shows it."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.models_compare import as_page
from models.comparison import Comparison, QueryComparison
from tests.conftest import ROOT
from tests.support.programs import needs_browser, running_browser

LEFT = ["photos/cat.jpg", "photos/coffee.jpg"]
RIGHT = ["photos/rocket-launch.jpg", "photos/cat.jpg", "photos/grass.jpg"]


@pytest.fixture
def images() -> Iterator[str]:
    """A server that has the sample pictures where the gateway has them."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(ROOT))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@needs_browser
@pytest.mark.timeout(180)
async def test_both_models_show_their_images_and_the_largest_difference_comes_first(
    images: str, tmp_path: Path
) -> None:
    result = Comparison(
        "old",
        "new",
        [
            QueryComparison("same <b>&", LEFT, LEFT, 1.0, 1.0, None, None),
            QueryComparison("a cat", LEFT, RIGHT, 0.25, 0.3, 0.5, 1.0),
        ],
    )
    path = tmp_path / "page.html"
    path.write_text(as_page(result, images), encoding="utf-8")
    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(60_000)
        await page.goto(path.as_uri())
        assert await page.locator("h2").all_inner_texts() == ["a cat", "same <b>&"]
        first = page.locator("section").first
        assert "nDCG 0.500 / 1.000" in await first.inner_text()
        sides = first.locator("> div > div")
        shown = [await sides.nth(n).locator("figcaption").all_inner_texts() for n in range(2)]
        assert shown == [LEFT, RIGHT]
        boxes = [await sides.nth(n).bounding_box() for n in range(2)]
        assert boxes[0]
        assert boxes[1]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        tops = [await image.bounding_box() for image in await first.locator("img").all()]
        assert len({box["y"] for box in tops if box}) == 1
        loaded = "image => image.decode().then(() => image.naturalWidth > 0)"
        for image in await first.locator("img").all():
            assert await image.evaluate(loaded)
        if folder := os.environ.get("SCREENSHOTS"):
            await page.screenshot(path=f"{folder}/comparison.png")
