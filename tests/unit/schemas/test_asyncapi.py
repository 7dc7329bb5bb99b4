"""The AsyncAPI document: current, valid by AsyncAPI's own schema, and true of the examples."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas import asyncapi, json_schema
from schemas.topics import TOPICS
from tests.support.gateway_on_fakes import gateway
from tests.unit.schemas.test_schemas import CASES

OFFICIAL = Path(__file__).parents[1] / "data" / "asyncapi" / "3.0.0.json.gz"
"""AsyncAPI's JSON Schema of version 3.0.0, as it is published (Apache-2.0)."""


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(OFFICIAL.read_bytes())))


def test_the_checked_in_document_is_current() -> None:
    found = (json_schema.DIRECTORY / "asyncapi.json").read_text()
    assert found == json_schema.render(asyncapi.document()), "run: python -m schemas.json_schema"


def test_the_document_is_valid(official: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in official.iter_errors(asyncapi.document())] == []


@pytest.mark.parametrize(
    "path",
    [
        ("info", "version"),
        ("channels", "searches", "bindings", "kafka", "partitions"),
        ("operations", "readFeedback", "action"),
        ("components", "schemas", "FeedbackGiven", "properties", "rating", "type"),
    ],
)
def test_the_schema_validates_every_part(
    official: jsonschema.Draft7Validator, path: tuple[str, ...]
) -> None:
    broken = copy.deepcopy(asyncapi.document())
    node: Any = broken
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = "no such thing" if node[path[-1]] != "no such thing" else None
    if path == ("info", "version"):
        del node["version"]
    assert not official.is_valid(broken)


def test_every_reference_can_be_resolved() -> None:
    document = asyncapi.document()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for part in node.values() for found in references(part)]
        return [found for part in node for found in references(part)] if type(node) is list else []

    found = references(document)
    assert len(found) > 20
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_document_has_every_topic_with_its_settings() -> None:
    channels = asyncapi.document()["channels"]
    assert {channel["address"] for channel in channels.values()} == {t.name for t in TOPICS}
    for topic in TOPICS:
        (channel,) = [each for each in channels.values() if each["address"] == topic.name]
        kafka = channel["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        assert {
            name: value if isinstance(value, str) else ",".join(map(str, value))
            for name, value in (
                (name, [value] if isinstance(value, int) else value)
                for name, value in kafka["topicConfiguration"].items()
            )
        }.items() <= topic.config().items()


@pytest.mark.parametrize("path", CASES, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_example_is_a_payload_of_its_topic(path: Path) -> None:
    document = asyncapi.document()
    (channel,) = [c for c in document["channels"].values() if c["address"] == path.parts[-3]]
    ((name, _),) = channel["messages"].items()
    payload = document["components"]["messages"][name]["payload"]
    schema = {**payload, "components": document["components"]}
    jsonschema.validate(json.loads(path.read_text())["value"], schema)


async def test_the_gateway_serves_it_and_the_schemas(tmp_path: Path, small_spec: Any) -> None:
    async with gateway(tmp_path, small_spec) as served:
        answer = await served.client.get("/api/v1/asyncapi.json")
        assert answer.json() == json.loads(json_schema.render(asyncapi.document()))
        for name, schema in json_schema.generate().items():
            answer = await served.client.get(f"/api/v1/schemas/{name}")
            assert answer.json() == json.loads(json_schema.render(schema))
        for wrong in ("2/searches", "1/nothing"):
            answer = await served.client.get(f"/api/v1/schemas/{wrong}.json")
            assert answer.status_code == 404
            assert "no topic" in answer.json()["detail"]
        assert (await served.client.get("/api/v1/schemas/x/searches.json")).status_code == 422
