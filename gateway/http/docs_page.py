"""The HTTP API as a page to read and to try, served whole from here: no other host is asked.

Swagger UI (Apache-2.0) comes with the package `fastapi_offline`, of which nothing else is used.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from starlette.responses import FileResponse

from gateway.http.static import HEADERS as PAGE_HEADERS
from gateway.http.static import MEDIA_TYPES, WEB

PATH: Final = "/docs"
HEADERS: Final = {
    **PAGE_HEADERS,
    # Its style sheet holds its icons.
    "Content-Security-Policy": PAGE_HEADERS["Content-Security-Policy"].replace(
        "img-src 'self' blob:", "img-src 'self' data:"
    ),
}


def add_routes(app: FastAPI) -> None:
    """Add the page and its files."""
    package = Path(str(files("fastapi_offline"))) / "static"
    assets = {
        "swagger-ui.css": package / "swagger-ui.css",
        "swagger-ui-bundle.js": package / "swagger-ui-bundle.js",
        "start.js": WEB / "docs.js",
    }

    @app.get(PATH, include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "docs.html", headers=HEADERS)

    def add(name: str, file: Path) -> None:
        @app.get(f"{PATH}/{name}", include_in_schema=False)
        async def asset() -> Response:
            return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)

    for name, file in assets.items():
        add(name, file)
