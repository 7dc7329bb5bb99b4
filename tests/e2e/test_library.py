"""Duplicates, thumbnails, uploads and pictures sent as forms, on the whole system."""

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageOps

from tests.e2e.conftest import SAMPLES, System, eventually
from tests.unit.docs.test_python_client import load


def new_image(source: str, **options: Any) -> bytes:
    """A picture nobody has seen, of what the source shows."""
    buffer = io.BytesIO()
    with Image.open(SAMPLES / source) as image:
        ImageOps.mirror(image.convert("RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


async def groups(client: httpx.AsyncClient, **query: Any) -> list[set[str]]:
    found: list[set[str]] = []
    while True:
        response = await client.get("/api/v1/duplicates", params=query)
        assert response.status_code == 200, response.text
        answer = response.json()
        found += [{member["image_name"] for member in group} for group in answer["groups"]]
        if answer["next_cursor"] is None:
            return found
        query["cursor"] = answer["next_cursor"]


async def test_an_added_image_can_be_found_at_once(
    system: System, client: httpx.AsyncClient
) -> None:
    data = new_image("photos/coffee.jpg", quality=81)
    answer = await client.post(
        "/api/v1/images",
        files={"image": ("my coffee.jpg", data)},
        data={"folder": "uploaded/today"},
    )
    assert answer.status_code == 201, answer.text
    added = answer.json()
    assert added["image_name"] == "uploaded/today/my coffee.jpg"
    assert added["sha256"] == hashlib.sha256(data).hexdigest()
    assert (system.images / added["image_name"]).read_bytes() == data
    wait_for = {"image_name": added["image_name"], "sha256": added["sha256"], "timeout_s": 30}
    here = {"folder": "uploaded"}
    body = {"text": "a cup of coffee", "limit": 5, "filters": here, "wait_for": wait_for}
    response = await client.post("/api/v1/search-image", json=body)
    assert response.status_code == 200, response.text
    assert [match["image_name"] for match in response.json()["matches"]] == [added["image_name"]]
    served = await client.get("/images/" + added["image_name"])
    assert served.content == data

    again = await client.post(
        "/api/v1/images",
        files={"image": ("my coffee.jpg", data)},
        data={"folder": "uploaded/today"},
    )
    assert (again.status_code, again.json()["status"]) == (200, "unchanged")
    changed = new_image("photos/cat.jpg", quality=81)
    form: dict[str, str] = {"folder": "uploaded/today"}
    files = {"image": ("my coffee.jpg", changed)}
    assert (await client.post("/api/v1/images", files=files, data=form)).status_code == 409
    replaced = await client.post("/api/v1/images", files=files, data={**form, "overwrite": "true"})
    assert replaced.status_code == 201
    wait_for["sha256"] = replaced.json()["sha256"]
    body = {"text": "a cat", "limit": 1, "filters": here, "wait_for": wait_for}
    body["include"] = ["sha256"]
    response = await client.post("/api/v1/search-image", json=body)
    assert response.json()["matches"][0]["sha256"] == wait_for["sha256"]


async def test_a_wait_that_times_out_is_reported(client: httpx.AsyncClient) -> None:
    wait_for = {"image_name": "never/there.jpg", "timeout_s": 0.5}
    response = await client.post("/api/v1/search-image", json={"text": "x", "wait_for": wait_for})
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_image_can_be_sent_as_a_form(client: httpx.AsyncClient) -> None:
    cat = (SAMPLES / "photos" / "cat.jpg").read_bytes()

    async def found() -> bool:
        response = await client.post(
            "/api/v1/search-image",
            files={"image": ("cat.jpg", cat, "image/jpeg")},
            data={"limit": "1", "filters": '{"folder": "photos"}'},
        )
        assert response.status_code == 200, response.text
        return bool(response.json()["matches"][0]["image_name"] == "photos/cat.jpg")

    await eventually(found, seconds=60)


async def test_duplicates_are_found(system: System, client: httpx.AsyncClient) -> None:
    folder = system.images / "twice"
    folder.mkdir()
    source = SAMPLES / "drawings" / "piano.jpg"
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(source, folder / name)
    with Image.open(source) as image:
        image.save(folder / "near.jpg", quality=88)
    equal = {"drawings/piano.jpg", "twice/one.jpg", "twice/two.jpg"}

    async def exact() -> bool:
        return equal in await groups(client, kind="exact")

    await eventually(exact, seconds=30)

    async def near() -> bool:
        found = await groups(client, kind="near", limit=5)
        return any({*equal, "twice/near.jpg"} <= group for group in found)

    await eventually(near, seconds=30)
    assert all("twice/near.jpg" not in group for group in await groups(client, kind="exact"))


async def test_thumbnails(system: System, client: httpx.AsyncClient) -> None:
    for size in (128, 256):
        response = await client.get(f"/thumbnails/photos/cat.jpg?size={size}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(response.content)).size) == size
    tag = {"If-None-Match": response.headers["etag"]}
    again = await client.get("/thumbnails/photos/cat.jpg?size=256", headers=tag)
    assert again.status_code == 304
    for path in ("../jwt.secret", "%2e%2e/%2e%2e/etc/passwd", "photos", "none.jpg"):
        assert (await client.get(f"/thumbnails/{path}")).status_code == 404
    kept = list(Path(system.state / "thumbnails").rglob("*.jpg"))
    assert len(kept) >= 2


def test_the_example_client(system: System, tmp_path: Path) -> None:
    module = load()
    client = module.ImageSearch(system.gateway, trust_env=False)
    file = tmp_path / "from the client.jpg"
    file.write_bytes(new_image("photos/rocket-launch.jpg", quality=77))
    added = client.add(file, folder="client")
    here = {"folder": "client"}
    answer = client.search("a rocket", filters=here, wait_for=module.wait_for(added))
    assert [match["image_name"] for match in answer["matches"]] == [added["image_name"]]
    assert client.rate(answer, 9, added["image_name"])["status"] == "stored"
    (match,) = client.search_by_file(file, limit=1, filters=here)["matches"]
    assert match["score"] > 0.99
    met = [match["image_name"] for match in client.pages("a rocket", limit=30)]
    assert len(met) == len(set(met)) > 60
    assert isinstance(list(client.duplicates("exact")), list)
