"""Filters, pages, details, the cut-off and collapsed duplicates on the whole system."""

from typing import Any

import httpx
from PIL import Image

from tests.e2e.conftest import SAMPLES, System, eventually, names


async def search(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/api/v1/search-image", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def found(answer: dict[str, Any]) -> list[str]:
    return [match["image_name"] for match in answer["matches"]]


async def all_indexed(client: httpx.AsyncClient) -> None:
    samples = [p for p in SAMPLES.rglob("*") if p.suffix == ".jpg"]

    async def there() -> bool:
        health = (await client.get("/api/v1/healthcheck")).json()
        return int(health["images"]) >= len(samples)

    await eventually(there, seconds=90)


async def test_filters_select_matches_and_details_are_returned(client: httpx.AsyncClient) -> None:
    await all_indexed(client)
    samples = {p.relative_to(SAMPLES).as_posix(): p for p in SAMPLES.rglob("*.jpg")}
    answer = await search(client, text="an animal", limit=1000, filters={"folder": "photos"})
    assert set(found(answer)) == {name for name in samples if name.startswith("photos/")}
    sizes = {}
    for name, path in samples.items():
        with Image.open(path) as image:
            sizes[name] = image.size
    bound = sorted(width for width, _ in sizes.values())[len(sizes) // 2]
    answer = await search(
        client,
        text="an animal",
        limit=1000,
        filters={"width": {"min": bound}, "media_type": ["image/jpeg"], "has_gps": False},
        include=["width", "height", "size_bytes", "added_at", "camera"],
    )
    matches = {match["image_name"]: match for match in answer["matches"]}
    wide = {name for name, (width, _) in sizes.items() if width >= bound}
    assert wide <= set(matches)
    for name in wide:
        match = matches[name]
        assert (match["width"], match["height"]) == sizes[name]
        assert match["size_bytes"] == samples[name].stat().st_size
        assert match["added_at"].endswith("Z")
        assert "latitude" not in match
    later = {"added_at": {"from": "2100-01-01"}}
    assert found(await search(client, text="an animal", filters=later)) == []


async def test_pages_return_each_match_once(client: httpx.AsyncClient) -> None:
    await all_indexed(client)
    body: dict[str, Any] = {"text": "something round", "limit": 20, "paged": True}
    body["filters"] = {"folder": "drawings"}
    met: list[str] = []
    while True:
        answer = await search(client, **body)
        met += found(answer)
        if answer["next_cursor"] is None:
            break
        body["cursor"] = answer["next_cursor"]
    drawings = {p.relative_to(SAMPLES).as_posix() for p in (SAMPLES / "drawings").glob("*.jpg")}
    assert len(met) == len(set(met))
    assert set(met) == drawings


async def test_the_cut_off_keeps_only_outstanding_matches(client: httpx.AsyncClient) -> None:
    await all_indexed(client)
    tennis = await search(client, text="tennis", limit=1000, cut_off="auto")
    assert found(tennis)[:2] == (await names(client, "tennis", 2))
    assert 2 <= len(tennis["matches"]) <= 10
    assert tennis["matches"][-1]["score"] >= tennis["cut_off_score"]
    nonsense = await search(client, text="quarterly tax report", limit=1000, cut_off="auto")
    assert len(nonsense["matches"]) <= 2


async def test_near_duplicates_are_collapsed(system: System, client: httpx.AsyncClient) -> None:
    await all_indexed(client)
    folder = system.images / "alike"
    folder.mkdir(exist_ok=True)
    with Image.open(SAMPLES / "photos" / "coffee.jpg") as image:
        for quality in (70, 80, 90):
            image.save(folder / f"coffee {quality}.jpg", quality=quality)
    here = {"folder": "alike"}

    async def there() -> bool:
        return len(found(await search(client, text="coffee", filters=here))) == 3

    await eventually(there, seconds=30)
    (match,) = (await search(client, text="coffee", filters=here, collapse_duplicates=True))[
        "matches"
    ]
    assert len(match["duplicates"]) == 2
    assert {match["image_name"], *match["duplicates"]} == {
        f"alike/coffee {quality}.jpg" for quality in (70, 80, 90)
    }
