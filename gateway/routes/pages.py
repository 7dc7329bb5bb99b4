"""The web page, and the page that documents the HTTP API, both served without other hosts.

Swagger UI (Apache-2.0) comes with the package `fastapi_offline`, of which nothing else is used.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Response
from starlette.responses import RedirectResponse

from gateway.http.static import MEDIA_TYPES, WEB, StaticPage, headers


def router() -> APIRouter:
    """The routes: the page at `/` with its files below `/web`, the documentation at `/docs`."""
    routes = APIRouter(include_in_schema=False)
    own = {
        path.name: path
        for path in WEB.iterdir()
        if path.suffix in MEDIA_TYPES and path.suffix != ".html"
    }
    StaticPage(WEB / "index.html", own).add_to(routes, "/", "/web")
    swagger = Path(str(files("fastapi_offline"))) / "static"
    documentation = {
        "swagger-ui.css": swagger / "swagger-ui.css",
        "swagger-ui-bundle.js": swagger / "swagger-ui-bundle.js",
        "start.js": WEB / "docs.js",
    }
    # The icons are data URLs in Swagger UI's style sheet.
    page = StaticPage(WEB / "docs.html", documentation, headers("data:"))
    page.add_to(routes, "/docs", "/docs")

    @routes.get("/redoc")
    async def redoc() -> Response:
        """FastAPI's other address of the documentation."""
        return RedirectResponse("/docs")

    return routes
