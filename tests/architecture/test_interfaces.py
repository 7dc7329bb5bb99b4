"""What others rely on stays: a name may be added to `interfaces.txt`, and none may leave it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.registry import Collector
from typer.main import get_command

from adapters.embedder.spec import ModelSpec
from cli.__main__ import build
from cli.configuration import COMMANDS, PROCESSES
from gateway.state.rating_metrics import RatingMetrics
from models.advice import Advice
from producers.metrics import StatusCollector
from schemas.topics import TOPICS
from tests.support.gateway_on_fakes import gateway

LIST = Path(__file__).with_name("interfaces.txt")
METHODS = ("get", "post", "put", "patch", "delete")


def topics() -> Iterator[str]:
    """Names of topics, and of the fields of their events."""
    for topic in TOPICS:
        yield f"topic {topic.name}"
        schema = topic.event.model_json_schema()
        yield from (f"field {topic.name} {name}" for name in fields(schema, schema, ()))


def fields(schema: Any, document: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    """Names of an object's properties, and of those below them, joined by dots."""
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference in above:
            return
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        yield from fields(found, document, (*above, reference))
        return
    for kind in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(kind, ()):
            yield from fields(each, document, above)
    yield from fields(schema.get("items"), document, above)
    yield from fields(schema.get("additionalProperties"), document, above)
    for name, each in schema.get("properties", {}).items():
        yield name
        yield from (f"{name}.{below}" for below in fields(each, document, above))


async def pages(client: httpx.AsyncClient) -> list[str]:
    """Paths that the OpenAPI document leaves out."""
    candidates = ("/", "/analytics", "/docs", "/metrics", "/openapi.json")
    return [f"page {path}" for path in candidates if (await client.get(path)).is_success]


def routes(document: Mapping[str, Any]) -> Iterator[str]:
    """Routes with their parameters, the fields of their bodies and of their answers."""
    for path, operations in document["paths"].items():
        for method in METHODS:
            if (operation := operations.get(method)) is None:
                continue
            route = f"{method.upper()} {path}"
            yield f"route {route}"
            for each in operation.get("parameters", ()):
                yield f"parameter {route} {each['name']}"
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for name in fields(content.get("schema"), document, ()):
                    yield f"request {route} {name}"
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    for name in fields(content.get("schema"), document, ()):
                        yield f"answer {route} {status} {name}"


def metrics(*collectors: Collector) -> Iterator[str]:
    """Names of metrics."""
    for collector in collectors:
        for metric in collector.collect():
            yield f"metric {metric.name}{'_total' if metric.type == 'counter' else ''}"


def commands(command: Any, name: str = "./image-search") -> Iterator[str]:
    """Commands with their options and arguments."""
    yield f"command {name}"
    for parameter in command.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            yield f"option {name} {option}"
    for each, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {each}")


def variables() -> Iterator[str]:
    """Environment variables."""
    for settings in PROCESSES.values():
        for each in settings:
            yield from (f"variable {name.upper()}" for name in each.model_fields)
    yield from (f"variable {name}" for name in COMMANDS)


async def interfaces(folder: Path, spec: ModelSpec) -> set[str]:
    """All names that others rely on."""
    ratings = RatingMetrics.__new__(RatingMetrics)
    ratings._last = Advice("a", 1, 1.0, 2.0, True, "b", 0.5, 0.6)
    async with gateway(folder, spec) as bench:
        document = (await bench.client.get("/openapi.json")).json()
        found = {*await pages(bench.client), *routes(document)}
    command = get_command(build())
    found.update(topics(), metrics(ratings, StatusCollector(dict)), commands(command), variables())
    return found


@pytest.mark.slow
async def test_each_name_is_still_there(tmp_path: Path, small_spec: ModelSpec) -> None:
    listed = set(LIST.read_text(encoding="utf-8").splitlines())
    found = await interfaces(tmp_path, small_spec)
    assert sorted(listed - found) == [], "others rely on these: keep an alias"
    assert sorted(found - listed) == [], f"new: add these lines to {LIST.name}"
