"""On the real server: writing to a collection that is not there does not make one."""

import httpx

from tests.conftest import Servers


async def test_a_write_to_a_missing_collection_is_refused_and_makes_none(servers: Servers) -> None:
    async with httpx.AsyncClient(base_url=servers.weaviate_url, trust_env=False) as client:
        body = {"class": "Images_vanished_0123", "properties": {"image_id": "a"}, "vector": [1.0]}
        answer = await client.post("/v1/objects", json=body)
        assert answer.status_code >= 400, answer.text
        batch = await client.post("/v1/batch/objects", json={"objects": [body]})
        assert "errors" in batch.text
        names = [each["class"] for each in (await client.get("/v1/schema")).json()["classes"]]
        assert "Images_vanished_0123" not in names
