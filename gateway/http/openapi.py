"""The OpenAPI document, completed with what FastAPI cannot derive."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.http.api_models import SearchRequest

SCHEMES: dict[str, Any] = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token (OIDC)."},
}


def complete(app: FastAPI, *, secured: bool) -> None:
    """Add the models of bodies that are parsed by hand and, if access is `secured`, credentials."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = schema.pop("$defs", {})
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, part in {**parts, "SearchRequest": schema}.items():
            schemas.setdefault(name, part)
        if secured:
            document["components"]["securitySchemes"] = SCHEMES
            document["security"] = [{name: []} for name in SCHEMES]
            document["paths"]["/api/v1/healthcheck"]["get"]["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]
