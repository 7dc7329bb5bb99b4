"""What a person can mend: dead letters, and an index that disagrees with the log."""

import json
from typing import Any

import httpx
from PIL import Image

from adapters.index.weaviate import WeaviateIndex
from adapters.naming import object_id
from tests.e2e.conftest import System, eventually, names

SECONDS = 60


def dead_letters(system: System, image_id: str, *options: str) -> list[dict[str, Any]]:
    listed = json.loads(system.servers.command("dlq", "list", "--json", *options).stdout)
    return [letter for letter in listed if letter["image_id"] == image_id]


async def test_a_dead_letter_is_retried_with_its_history_and_dropped(system: System) -> None:
    name = "letters/broken.jpg"
    (system.images / "letters").mkdir()
    (system.images / name).write_text("no picture at all\n" * 3)

    async def letters(count: int) -> list[dict[str, Any]]:
        found = dead_letters(system, name, "--all")
        return found if len(found) == count else []

    (first,) = await eventually(lambda: letters(1), seconds=SECONDS, every=1)
    assert first["error_class"] == "Rejected"
    assert first["settled_as"] is None
    shown = json.loads(system.servers.command("dlq", "show", first["letter"]).stdout)
    assert shown["original_key"] == name

    assert "retried 1" in system.servers.command("dlq", "retry", first["letter"]).stdout
    both = await eventually(lambda: letters(2), seconds=SECONDS, every=1)
    (second,) = [letter for letter in both if letter["settled_as"] is None]
    assert second["attempts"] == 2
    assert second["history"] == [first["letter"]]
    (settled,) = [letter for letter in both if letter["settled_as"] is not None]
    assert settled["settled_as"] == "retried"

    assert "dropped 1" in system.servers.command("dlq", "drop", second["letter"]).stdout
    assert dead_letters(system, name) == []
    assert system.servers.command("dlq", "retry", check=False).returncode == 1


async def test_a_dead_letter_whose_file_was_repaired_is_not_retried(
    system: System, client: httpx.AsyncClient
) -> None:
    name = "letters/mended.png"
    (system.images / "letters").mkdir(exist_ok=True)
    (system.images / name).write_text("no picture yet\n")

    async def letters() -> list[dict[str, Any]]:
        return dead_letters(system, name)

    (letter,) = await eventually(letters, seconds=SECONDS, every=1)
    Image.new("RGB", (50, 40), (3, 141, 59)).save(system.images / name)

    async def found() -> bool:
        return name in await names(client, "green")

    await eventually(found, seconds=SECONDS)
    reported = system.servers.command("dlq", "retry", letter["letter"]).stdout
    assert "retried 0" in reported
    assert "newer events of their pictures exist: 1" in reported
    assert await found()


async def test_an_audit_finds_what_is_wrong_and_repairs_it(
    system: System, client: httpx.AsyncClient
) -> None:
    async def clean() -> bool:
        return system.servers.command("index", "audit", check=False).returncode == 0

    await eventually(clean, seconds=SECONDS, every=1)
    async with httpx.AsyncClient(trust_env=False) as weaviate:
        servers = system.servers
        index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
        try:
            await index.connect()
            collection = await index.active()
            assert collection is not None
            await index.delete(collection, ["photos/cat.jpg"])
            where = f"{servers.weaviate_url}/v1/objects"
            found = await weaviate.get(
                where, params={"class": collection.name, "limit": "1", "include": "vector"}
            )
            (stray,) = found.json()["objects"]
            stray["id"] = str(object_id("never/was.jpg"))
            stray["properties"]["image_id"] = "never/was.jpg"
            (await weaviate.post(where, json=stray)).raise_for_status()
        finally:
            await index.close()
    reported = json.loads(system.servers.command("index", "audit", "--json", check=False).stdout)
    assert reported["missing"] == ["photos/cat.jpg"]
    assert reported["orphaned"] == ["never/was.jpg"]
    assert reported["stale"] == []
    assert "published 2 records" in system.servers.command("index", "audit", "--repair").stdout
    await eventually(clean, seconds=SECONDS, every=1)
    assert "photos/cat.jpg" in await names(client, "a cat", limit=3)
