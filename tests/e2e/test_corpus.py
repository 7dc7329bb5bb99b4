"""Every file of `docs/formats.md` on the running system: watched, uploaded, searched with."""

import asyncio
import base64
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from imaging.media_types import RAW_MEDIA_TYPE
from imaging.upright import open_upright
from tests.corpus.builders import Case, Facts, saved
from tests.e2e.conftest import System, eventually
from tests.support.browsers import visit
from tests.support.corpus_cases import INDEXED, cases

FOLDER = "corpus"
PROPERTIES = ["media_type", "width", "height", *Facts._fields]
AT_ONCE = 4

pytestmark = pytest.mark.timeout(600)


def _name(number: int, case: Case) -> str:
    """Without a suffix where the content shows the type; a refused file gets an image's suffix.

    Only its name shows that a TIFF is a camera's raw file.
    """
    if case.outcome == INDEXED and case.media_type != RAW_MEDIA_TYPE:
        return f"{FOLDER}/{number}"
    return f"{FOLDER}/{number}.{'jpg' if case.outcome != INDEXED else 'nef'}"


NAMED = {_name(number, case): case for number, case in enumerate(cases())}
SHOWN = {name: case for name, case in NAMED.items() if case.outcome == INDEXED}
REFUSED = {name: case for name, case in NAMED.items() if case.outcome != INDEXED}


async def everyone(things: Sequence[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Do the work for each of them, a few at once."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(each: str) -> None:
        async with limit:
            await work(each)

    async with asyncio.TaskGroup() as group:
        for each in things:
            group.create_task(one(each))


async def searched(client: httpx.AsyncClient, **query: Any) -> dict[str, dict[str, Any]]:
    """name -> the match, for each image of the corpus that is found."""
    body = {"filters": {"folder": f"{FOLDER}/"}, "limit": 1000} | query
    answer = await client.post("/api/v1/search-image", json=body)
    if answer.status_code != 200:
        pytest.fail(answer.text)
    return {match["image_name"]: match for match in answer.json()["matches"]}


async def letters(client: httpx.AsyncClient) -> dict[str, str]:
    answer = await client.get("/api/v1/dead-letters", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    return {
        letter["image_name"]: letter["reason"]
        for letter in answer.json()["letters"]
        if letter["image_name"].startswith(f"{FOLDER}/")
    }


@pytest.fixture(scope="module")
def corpus(system: System) -> Any:
    """The whole corpus in a folder of the watched one."""
    (system.images / FOLDER).mkdir()
    for name, case in NAMED.items():
        (system.images / name).write_bytes(case.data)
    try:
        yield
    finally:
        shutil.rmtree(system.images / FOLDER)


@pytest.fixture
async def indexed(
    corpus: None, system: System, client: httpx.AsyncClient
) -> dict[str, dict[str, Any]]:
    """Each image's match in a search, once all are indexed or refused."""

    async def all_there() -> dict[str, dict[str, Any]] | None:
        found = await searched(client, text="anything", include=PROPERTIES)
        refused = await letters(client)
        assert found.keys() == SHOWN.keys()
        assert refused.keys() == REFUSED.keys()
        return found

    found = await eventually(all_there, seconds=90, every=2)
    assert found is not None
    return found


async def test_each_is_found_with_its_facts_or_refused_with_its_reason(
    indexed: dict[str, dict[str, Any]], client: httpx.AsyncClient
) -> None:
    wrong = []
    for name, case in SHOWN.items():
        reported = indexed[name]
        kind_and_size = (reported["media_type"], reported["width"], reported["height"])
        if kind_and_size != (case.media_type, *case.size) or Facts.of(reported) != case.facts:
            wrong.append((case.name, reported))
    assert not wrong, wrong
    reasons = await letters(client)
    assert [n for n, case in REFUSED.items() if case.outcome not in reasons[n]] == []


async def test_original_and_thumbnail_are_what_a_browser_can_show(
    indexed: dict[str, dict[str, Any]], client: httpx.AsyncClient
) -> None:
    wrong: list[tuple[str, str]] = []

    async def look(name: str) -> None:
        case = SHOWN[name]
        original = await client.get(f"/images/{name}")
        assert original.status_code == 200, (case.name, original.text)
        assert original.content == case.data
        if original.headers["content-type"] != case.media_type:
            wrong.append((case.name, original.headers["content-type"]))
        thumbnail = await client.get(f"/thumbnails/{name}", params={"size": 512})
        assert thumbnail.status_code == 200, (case.name, thumbnail.text)
        assert len(thumbnail.content) < 100_000, case.name
        small = Image.open(io.BytesIO(thumbnail.content))
        assert (small.format, small.mode) == ("JPEG", "RGB"), case.name
        assert not {"icc_profile", "exif"} & set(small.info), case.name
        assert case.upright is not None
        upright = case.upright.copy()
        if case.media_type == RAW_MEDIA_TYPE:  # developed in half its size
            upright = upright.reduce(2)
        upright.thumbnail((512, 512))
        assert small.size == upright.size, case.name
        distance = np.abs(np.asarray(small, int) - np.asarray(upright)).mean()
        assert distance <= case.distance + 2, (case.name, distance)

    await everyone(list(SHOWN), look)
    assert not wrong, wrong


LOOK = """
async (names) => {
  const canvas = document.createElement("canvas");
  const found = {};
  for (const name of names) {
    const image = new Image();
    image.src = `/images/${name}`;
    try {
      await image.decode();
    } catch {
      found[name] = null;
      continue;
    }
    Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
    const surface = canvas.getContext("2d");
    surface.fillStyle = "white";
    surface.fillRect(0, 0, canvas.width, canvas.height);
    surface.drawImage(image, 0, 0);
    found[name] = canvas.toDataURL("image/png");
  }
  return found;
}
"""
OTHERWISE_IN_CHROMIUM = {
    "png with a wrong checksum of its header": "refused, though all its pixels are there",
    "bmp 16-bit with a mask of 32 bits": "refused, though its numbers say what they mean",
    "jpeg cut in half": "white below, where others are grey",
}
"""What it does with them; besides, it begins animations with nothing where that is their start."""


async def test_chromium_shows_the_same_as_the_decoder(
    indexed: dict[str, dict[str, Any]], system: System
) -> None:
    names = [
        name
        for name, case in SHOWN.items()
        if case.in_a_browser == "original"
        and case.name not in OTHERWISE_IN_CHROMIUM
        and not ("animated" in case.name and "transparent" in case.name)
    ]
    assert len(names) > 150
    async with visit(system.gateway) as page:
        seen = await page.evaluate(LOOK, names)
    wrong: list[tuple[str, object]] = []
    for name in names:
        case = SHOWN[name]
        if seen[name] is None:
            wrong.append((case.name, "not shown"))
            continue
        png = base64.b64decode(seen[name].partition(",")[2])
        pixels = Image.open(io.BytesIO(png)).convert("RGB")
        assert case.upright is not None
        if pixels.size != case.size:
            wrong.append((case.name, pixels.size))
            continue
        distance = np.abs(np.asarray(pixels, int) - np.asarray(case.upright)).mean()
        if distance > case.distance + 5:
            wrong.append((case.name, round(float(distance))))
    assert not wrong, wrong


async def test_the_embedding_equals_that_of_the_same_pixels_in_a_plain_png(
    indexed: dict[str, dict[str, Any]], client: httpx.AsyncClient
) -> None:
    alike: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, case in SHOWN.items():
        # `tests/unit` checks how close these pixels are to what the image should show.
        upright = open_upright(case.data, edge=10**6, background="white", max_pixels=10**9)
        alike[saved(upright.image, "PNG")].append(name)
    far: list[tuple[str, float]] = []

    async def search(png: str) -> None:
        data = bytes.fromhex(png)
        found = await searched(client, image=base64.b64encode(data).decode())
        for name in alike[data]:
            if found[name]["score"] <= 0.98:
                far.append((SHOWN[name].name, found[name]["score"]))

    await everyone([png.hex() for png in alike], search)
    assert not far, far


async def test_each_can_be_searched_with_or_is_refused_with_its_reason(
    indexed: dict[str, dict[str, Any]], client: httpx.AsyncClient
) -> None:
    wrong: list[tuple[str, object]] = []

    async def search(name: str) -> None:
        case = NAMED[name]
        image = base64.b64encode(case.data).decode()
        body = {"image": image, "filters": {"folder": f"{FOLDER}/"}, "limit": 1000}
        answer = await client.post("/api/v1/search-image", json=body)
        if case.outcome == INDEXED:
            scores = {m["image_name"]: m["score"] for m in answer.json().get("matches", [])}
            if scores.get(name, 0) < 0.999:
                wrong.append((case.name, scores.get(name, answer.text)))
        elif answer.status_code != 422 or (case.data and case.outcome not in answer.text):
            wrong.append((case.name, answer.text))

    await everyone(list(NAMED), search)
    assert not wrong, wrong


async def test_each_can_be_uploaded_or_is_refused_with_its_reason(
    indexed: dict[str, dict[str, Any]], system: System, client: httpx.AsyncClient
) -> None:
    wrong: list[tuple[str, object]] = []

    async def upload(name: str) -> None:
        case = NAMED[name]
        file = {"image": (name.replace("/", "-"), case.data)}
        answer = await client.post("/api/v1/images", files=file)
        if case.outcome == INDEXED:
            if answer.status_code not in (200, 201):
                wrong.append((case.name, answer.text))
        elif answer.status_code != 422 or (case.data and case.outcome not in answer.text):
            wrong.append((case.name, answer.text))

    try:
        await everyone(list(NAMED), upload)
        assert not wrong, wrong
    finally:
        for each in (system.images / "uploads").glob(f"{FOLDER}-*"):
            each.unlink()


async def test_skipped_files_are_listed_and_counted(
    indexed: dict[str, dict[str, Any]], system: System, client: httpx.AsyncClient
) -> None:
    folder = system.images / FOLDER
    (folder / "notes.txt").write_text("no picture")
    (folder / "notes").write_text("no picture")
    (folder / ".hidden.jpg").write_bytes(b"whatever")
    expected = {"other_suffix": "notes.txt", "not_a_picture": "notes", "ignored": ".hidden.jpg"}

    async def listed() -> bool:
        reported = json.loads(system.servers.command("index", "skipped", "--json").stdout)
        names = {each["reason"]: each["names"] for each in reported["reasons"]}
        return all(f"{FOLDER}/{name}" in names[reason] for reason, name in expected.items())

    await eventually(listed, seconds=60, every=1)
    state = (await client.get("/api/v1/state")).json()
    assert state["skipped"] == sum(state["skipped_reasons"].values()) >= 3
    assert expected.keys() <= state["skipped_reasons"].keys()
    text = system.servers.command("index", "skipped").stdout
    assert "the first bytes are not those of a picture" in text
    assert f"{FOLDER}/notes" in text


async def test_deleted_files_leave_the_index_and_no_dead_letters(
    indexed: dict[str, dict[str, Any]], system: System, client: httpx.AsyncClient
) -> None:
    for path in (system.images / FOLDER).iterdir():
        path.unlink()
    system.servers.command("index", "reconcile", "--allow-mass-removal")

    async def gone() -> bool:
        return not await searched(client, text="anything")

    await eventually(gone, seconds=120, every=1)
    listed = json.loads(system.servers.command("dlq", "list", "--json").stdout)
    ours = [each["letter"] for each in listed if each["image_id"].startswith(f"{FOLDER}/")]
    if ours:
        system.servers.command("dlq", "drop", *ours)
