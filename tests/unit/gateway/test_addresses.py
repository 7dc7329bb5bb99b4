"""Every valid request has an address that the server takes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.embedder.spec import ModelSpec
from tests.support.gateway_on_fakes import Gateway, gateway

LONGEST = 65_535
"""Bytes of an address; the server answers a longer one itself, without a problem document."""
OF_A_CHARACTER = 12
"""Bytes of a character beyond the basic plane, each byte of UTF-8 as `%F0`."""
OF_A_NUMBER = 25


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec, []) as bench:
        yield bench


def longest(schema: dict[str, Any]) -> int:
    """The most bytes that a value takes in an address."""
    if "anyOf" in schema:
        return max(longest(each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return max(len(str(each)) for each in schema.get("enum", [schema.get("const")]))
    kind = schema["type"]
    if kind == "string":
        if schema.get("format") in ("uuid", "date-time"):
            return 100
        counted = re.search(r"\{\d+,(\d+)\}\$$", str(schema.get("pattern", "")))
        if counted:
            return int(counted[1]) * OF_A_CHARACTER
        ascii_only = str(schema.get("pattern", "")).startswith("^[A-Za-z0-9_.-]")
        return int(schema["maxLength"]) * (1 if ascii_only else OF_A_CHARACTER)
    return {"null": 0, "boolean": 5, "integer": OF_A_NUMBER, "number": OF_A_NUMBER}[kind]


def bytes_of(parameter: dict[str, Any]) -> int:
    schema, name = parameter["schema"], len(parameter["name"]) + 2
    if schema.get("type") == "array":
        return int(schema["maxItems"]) * (name + longest(schema["items"]))
    return name + longest(schema)


async def test_no_valid_request_has_an_address_that_is_too_long(bench: Gateway) -> None:
    document = (await bench.client.get("/openapi.json")).json()
    sizes = {
        f"{method} {path}": len(path)
        + sum(
            bytes_of(each)
            for each in operation.get("parameters", ())
            if each["in"] in ("path", "query")
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(sizes) > 10
    assert {name: size for name, size in sizes.items() if size > LONGEST} == {}


@pytest.mark.parametrize("path", ["/api/v1/images", "/api/v1/duplicates"])
async def test_a_cursor_of_other_characters_is_named(bench: Gateway, path: str) -> None:
    response = await bench.client.get(path, params={"cursor": "Ø"})
    assert response.status_code == 422
    assert "cursor" in response.text
