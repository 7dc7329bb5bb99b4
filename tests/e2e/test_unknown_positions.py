"""A dead letter about a file that never became a record refers to no record."""

import json
from typing import Any

import httpx

from adapters.index.weaviate import WeaviateIndex
from adapters.log.kafka import KafkaEventLog
from adapters.log.port import Message
from schemas.events import DeadLetter
from schemas.topics import IMAGES, IMAGES_DLQ
from tests.e2e.conftest import System, eventually

SECONDS = 60
LATIN1 = b"latin1-\xe9.jpg"
ESCAPED = r"latin1-\xe9.jpg"


def audit(system: System) -> dict[str, Any]:
    reported = system.servers.command("index", "audit", "--json", check=False).stdout
    return dict(json.loads(reported))


async def letters(system: System) -> list[dict[str, Any]]:
    listed = json.loads(system.servers.command("dlq", "list", "--json").stdout)
    return [letter for letter in listed if letter["image_id"] == ESCAPED]


async def test_every_image_is_restored_beside_a_file_name_that_is_not_utf_8(
    system: System, client: httpx.AsyncClient
) -> None:
    """With Weaviate emptied, a letter of ours, and one as earlier versions wrote it."""
    path = system.images / LATIN1.decode("utf-8", "surrogateescape")
    path.write_bytes(b"whatever it holds")
    old = DeadLetter(
        image_id=ESCAPED,
        error_class="InvalidName",
        reason="as an earlier version reported it",
        attempts=1,
        source_topic=IMAGES.name,
        source_partition=0,
        source_offset=0,
    )
    address = system.servers.kafka
    try:

        async def reported() -> list[dict[str, Any]]:
            return await letters(system)

        (letter,) = await eventually(reported, seconds=SECONDS, every=1)
        assert (letter["source_partition"], letter["source_offset"]) == (None, None)
        async with KafkaEventLog(address) as log:
            await log.publish(IMAGES_DLQ, [Message(ESCAPED, old)])

        async def clean() -> dict[str, Any]:
            found = audit(system)
            return found if found["clean"] and not found["waiting"] else {}

        before = await eventually(clean, seconds=SECONDS, every=1)
        servers = system.servers
        index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
        try:
            collection = await index.active()
            assert collection is not None
            await index.delete(collection, [name async for name, _ in index.stored(collection)])
        finally:
            await index.close()
        emptied = audit(system)
        assert len(emptied["missing"]) == before["agreed"]
        assert emptied["dead_lettered"] == before["dead_lettered"]
        assert "published" in system.servers.command("index", "audit", "--repair").stdout

        async def whole() -> bool:
            return bool((await clean()).get("agreed") == before["agreed"])

        await eventually(whole, seconds=SECONDS, every=1)
        state = (await client.get("/api/v1/state")).raise_for_status().json()
        assert state
    finally:
        path.unlink()
        system.servers.command("dlq", "drop", "--class", "InvalidName")
