"""The web page: static files, without a build step and without other hosts."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from starlette.responses import FileResponse

from gateway.http.problems import Problem

WEB: Final = Path(__file__).parents[1] / "web"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MEDIA_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def add_routes(app: FastAPI) -> None:
    """Add the page at `/` and its files below `/web`."""
    files = {
        path.name: MEDIA_TYPES[path.suffix] for path in WEB.iterdir() if path.suffix in MEDIA_TYPES
    }

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers=HEADERS)

    @app.get("/web/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, "There is no such file.")
        return FileResponse(WEB / name, media_type=files[name], headers=HEADERS)
