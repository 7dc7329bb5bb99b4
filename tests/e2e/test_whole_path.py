"""From a file in the folder to an answer, and from an answer to the log."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageOps

from tests.e2e.conftest import BUCKET, SAMPLES, System, eventually, names, search


def new_photograph(source: str, target: Path) -> None:
    """A picture nobody has seen, of what the source shows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(SAMPLES / source) as image:
        ImageOps.mirror(image.convert("RGB")).save(target, quality=88)


async def indexed(client: httpx.AsyncClient, count: int) -> bool:
    health = (await client.get("/api/v1/healthcheck")).json()
    return int(health["images"]) >= count


async def test_tennis_finds_tennis(system: System, client: httpx.AsyncClient) -> None:
    samples = [p for p in SAMPLES.rglob("*") if p.suffix in (".jpg", ".png")]
    await eventually(lambda: indexed(client, len(samples)), seconds=60)
    top = await names(client, "tennis", limit=2)
    assert len(top) == 2
    assert all("tennis" in name for name in top)


async def test_the_answer_has_its_shape_and_order(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/search-image", json={"text": "a cat"})
    answer = response.json()
    assert list(answer) == ["text", "model_name", "matches", "jwt"]
    assert (answer["text"], answer["model_name"]) == ("a cat", "lite")
    assert len(answer["matches"]) == 10
    assert all(set(match) == {"image_name", "score"} for match in answer["matches"])
    scores = [match["score"] for match in answer["matches"]]
    assert scores == sorted(scores, reverse=True)
    image = await client.get(f"/images/{answer['matches'][0]['image_name']}")
    assert image.status_code == 200
    assert image.headers["content-type"] in ("image/jpeg", "image/png")


async def test_searches_by_image_by_name_and_by_terms(client: httpx.AsyncClient) -> None:
    async def found_names(**body: Any) -> list[str]:
        response = await client.post("/api/v1/search-image", json=body)
        assert response.status_code == 200, response.text
        return [match["image_name"] for match in response.json()["matches"]]

    cat = base64.b64encode((SAMPLES / "photos" / "cat.jpg").read_bytes()).decode()
    assert (await found_names(image=cat, limit=1)) == ["photos/cat.jpg"]
    similar = await found_names(image_name="photos/cat.jpg", limit=5)
    assert len(similar) == 5
    assert "photos/cat.jpg" not in similar
    both = await found_names(terms=[{"text": "a ball"}, {"text": "tennis", "weight": 2}], limit=3)
    without = await found_names(
        terms=[{"text": "a ball"}, {"text": "tennis", "weight": -1}], limit=3
    )
    assert "tuxpaint-gpl2/tennis-ball.jpg" in both
    assert "tuxpaint-gpl2/tennis-ball.jpg" not in without


async def test_search_and_feedback_are_in_the_log(
    system: System, client: httpx.AsyncClient
) -> None:
    answer = await search(client, "a bird on a branch", limit=5)
    given = await client.post(
        "/api/v1/create-feedback", json={"user_feedback": 8, "jwt": answer["jwt"]}
    )
    assert given.status_code == 200, given.text
    search_id = given.json()["search_id"]

    async def of_this_search(topic: str) -> list[dict[str, Any]]:
        records = await system.read_topic(topic)
        return [json.loads(r.value) for r in records if r.key.decode() == search_id]

    (rated,) = await of_this_search("feedback")
    assert (rated["rating"], rated["text"]) == (8, "a bird on a branch")
    assert rated["model_name"] == answer["model_name"]
    assert rated["top_image"] == answer["matches"][0]["image_name"]
    (performed,) = await eventually(lambda: of_this_search("searches"), seconds=10)
    assert performed["text"] == "a bird on a branch"
    assert performed["kind"] == "text"
    assert performed["results"] == answer["matches"]
    assert performed["collection"].startswith("Images_lite_")
    assert performed["latency_ms"]["total"] > 0


async def test_feedback_needs_a_good_receipt_and_a_good_rating(
    client: httpx.AsyncClient,
) -> None:
    receipt = (await search(client, "a horse", limit=1))["jwt"]
    for rating in (0, 11, 5.5, "8", None):
        answer = await client.post(
            "/api/v1/create-feedback", json={"user_feedback": rating, "jwt": receipt}
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "user_feedback"
    head, _, signature = receipt.split(".")
    for token in ("x", f"{head}.e30.{signature}", receipt[:-4] + "AAAA"):
        answer = await client.post(
            "/api/v1/create-feedback", json={"user_feedback": 5, "jwt": token}
        )
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_new_image_is_found_and_a_deleted_one_is_gone(
    system: System, client: httpx.AsyncClient
) -> None:
    target = system.images / "fresh" / "my cat.jpg"
    new_photograph("photos/cat.jpg", target)

    async def found() -> bool:
        return "fresh/my cat.jpg" in (await names(client, "a cat", limit=3))

    await eventually(found, seconds=20)
    assert (await client.get("/images/fresh/my%20cat.jpg")).status_code == 200
    target.unlink()

    async def gone() -> bool:
        return "fresh/my cat.jpg" not in await names(client, "a cat")

    await eventually(gone, seconds=20)


async def test_an_image_in_a_bucket_is_found_and_shown(
    system: System, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    photograph = tmp_path / "cat.jpg"
    new_photograph("photos/cat.jpg", photograph)
    assert system.store is not None
    s3, key = system.store.client(), "2026/a cat & co.jpg"
    s3.put_object(Bucket=BUCKET, Key=key, Body=photograph.read_bytes())

    async def found() -> bool:
        return f"cloud/{key}" in (await names(client, "a cat", limit=5))

    await eventually(found, seconds=60)
    shown = await client.get("/images/cloud/2026/a%20cat%20%26%20co.jpg")
    assert shown.status_code == 200
    assert shown.content == photograph.read_bytes()
    assert shown.headers["content-type"] == "image/jpeg"
    for nothing in ("cloud/none.jpg", "cloud/2026", "cloud/../album/x.jpg", "cloud/"):
        assert (await client.get(f"/images/{nothing}")).status_code == 404
    s3.delete_object(Bucket=BUCKET, Key=key)

    async def gone() -> bool:
        return f"cloud/{key}" not in (await names(client, "a cat"))

    await eventually(gone, seconds=60)


async def test_a_changed_image_is_indexed_anew(system: System, client: httpx.AsyncClient) -> None:
    target = system.images / "changing.jpg"
    new_photograph("photos/cat.jpg", target)

    async def rank(text: str) -> int:
        return (await names(client, text)).index("changing.jpg")

    async def is_cat() -> bool:
        return await rank("a cat") < 4

    async def is_coffee() -> bool:
        return await rank("a cup of coffee") < 4

    async def rank_or_no(check: Any) -> bool:
        try:
            return bool(await check())
        except ValueError:
            return False

    await eventually(lambda: rank_or_no(is_cat), seconds=20)
    new_photograph("photos/coffee.jpg", target)
    await eventually(lambda: rank_or_no(is_coffee), seconds=20)
    assert not await rank_or_no(is_cat)
    target.unlink()


async def test_a_text_file_is_dead_lettered_and_other_files_are_found(
    system: System, client: httpx.AsyncClient
) -> None:
    folder = system.images / "mixed"
    folder.mkdir()
    (folder / "notes.jpg").write_text("I am a shopping list, not a picture.\n" * 5)
    new_photograph("photos/coffee.jpg", folder / "coffee.jpg")
    new_photograph("photos/cat.jpg", folder / "cat.jpg")

    async def both_found() -> bool:
        return {"mixed/coffee.jpg", "mixed/cat.jpg"} <= set(await names(client, "coffee"))

    await eventually(both_found, seconds=20)

    async def letters() -> list[dict[str, Any]]:
        return [
            letter
            for record in await system.read_topic("images.dlq")
            if record.value is not None  # null: an earlier letter was retried or dropped
            and (letter := json.loads(record.value))["image_id"] == "mixed/notes.jpg"
        ]

    (letter,) = await eventually(letters, seconds=20)
    assert "not a picture" in letter["reason"]
    assert letter["source_topic"] == "images"
    assert letter["attempts"] == 1
    assert "mixed/notes.jpg" not in await names(client, "shopping list")


async def test_only_images_are_served(system: System, client: httpx.AsyncClient) -> None:
    (system.images / "page.html").write_text("<script>alert(1)</script>")
    (system.images / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    for path in (
        "/images/page.html",
        "/images/drawing.svg",
        "/images/nothing.jpg",
        "/images/../jwt.secret",
        "/images/%2e%2e/%2e%2e/etc/passwd",
        "/images//etc/passwd",
        "/images/a%00.jpg",
    ):
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json", path


async def test_the_page_is_served(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for file in ("app.js", "style.css", "icon.svg"):
        assert (await client.get(f"/web/{file}")).status_code == 200
    assert (await client.get("/openapi.json")).status_code == 200
