"""The example client sends only what the OpenAPI document allows."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jsonschema
import pytest

from adapters.embedder.spec import ModelSpec
from tests.conftest import ROOT
from tests.support.gateway_on_fakes import gateway, png


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "image_search", ROOT / "docs" / "examples" / "image_search.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def document(tmp_path: Path, small_spec: ModelSpec) -> dict[str, Any]:
    async with gateway(tmp_path, small_spec) as bench:
        found: dict[str, Any] = (await bench.client.get("/openapi.json")).json()
        return found


def answered(request: httpx.Request) -> httpx.Response:
    first = "cursor" not in request.content.decode("latin-1") + str(request.url)
    return httpx.Response(
        200, json={"matches": [1], "groups": [2], "next_cursor": "x" if first else None, "jwt": "r"}
    )


@pytest.mark.slow
def test_the_example_client_sends_valid_requests(document: dict[str, Any], tmp_path: Path) -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        requests.append(request)
        return answered(request)

    module = load()
    client = module.ImageSearch(
        "http://gateway", key="secret", transport=httpx.MockTransport(answer)
    )
    file = tmp_path / "x.png"
    file.write_bytes(png())
    added = {"image_name": "uploads/x.png", "sha256": "a" * 64}
    found = client.search("tennis", limit=3, filters={"width": {"min": 3}}, include=["width"])
    client.search(terms=[{"text": "a", "weight": -1.5}], wait_for=module.wait_for(added))
    client.search_by_file(file, limit=3, filters={"folder": "a"}, cut_off="auto")
    assert list(client.pages("tennis", limit=2)) == [1, 1]
    client.add(file, folder="a/b")
    client.rate(found, 8, "a.jpg")
    assert list(client.duplicates("near")) == [2, 2]
    assert len(requests) == 9
    for request in requests:
        assert request.headers["x-api-key"] == "secret"
        operation = document["paths"][request.url.path][request.method.lower()]
        if request.method == "GET":
            allowed = {parameter["name"] for parameter in operation["parameters"]}
            assert set(request.url.params) <= allowed
            continue
        media_type = request.headers["content-type"].partition(";")[0]
        schema = operation["requestBody"]["content"][media_type]["schema"]
        whole = {**schema, "components": document["components"]}
        if media_type == "application/json":
            jsonschema.validate(json.loads(request.content), whole)
        else:
            reference = schema.get("$ref", "").rpartition("/")[2]
            form = document["components"]["schemas"][reference] if reference else schema
            names = {
                part.partition(b'"')[0].decode() for part in request.content.split(b' name="')[1:]
            }
            assert names <= set(form["properties"])
            assert set(form["required"]) <= names


def test_an_error_is_raised() -> None:
    refused = httpx.MockTransport(lambda _: httpx.Response(422, json={"title": "no"}))
    client = load().ImageSearch("http://gateway", transport=refused)
    with pytest.raises(httpx.HTTPStatusError) as error:
        client.search("x")
    assert error.value.response.json() == {"title": "no"}
