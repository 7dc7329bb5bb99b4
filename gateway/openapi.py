"""The OpenAPI document, completed with what the framework cannot see."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.http_models import SearchRequest


def complete(app: FastAPI) -> None:
    """Add the models of bodies that are read by hand."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = schema.pop("$defs", {})
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, part in {**parts, "SearchRequest": schema}.items():
            schemas.setdefault(name, part)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
