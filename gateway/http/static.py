"""Static files of the pages: read from disk as they are, without a build step.

Starlette's `StaticFiles` serves all of a folder below a mount; here a page is assembled from files
of several folders and packages, and errors below it stay problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response
from starlette.responses import FileResponse

from gateway.http.problems import Problem

WEB: Final = Path(__file__).parents[1] / "web"
"""The folder of the gateway's own pages."""
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def headers(images: str = "") -> dict[str, str]:
    """The headers of a page and its files: nothing is loaded from another host.

    `images` names further sources of images that the page shows, for instance `blob:`.
    """
    sources = f"img-src 'self' {images}; " if images else ""
    return {
        "Content-Security-Policy": f"default-src 'self'; {sources}object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


HEADERS: Final = headers("blob:")
"""Headers of the gateway's own page, which shows pictures before they are uploaded."""


class StaticPage:
    """A page and the files that it loads."""

    def __init__(
        self, page: Path, files: Mapping[str, Path], headers: Mapping[str, str] = HEADERS
    ) -> None:
        """`files` maps names in addresses to files; their suffixes are those of `MEDIA_TYPES`."""
        self._page = page
        self._files = files
        self._headers = headers

    def add_to(self, routes: APIRouter, path: str, folder: str) -> None:
        """Serve the page at `path` and its files below `folder`."""

        async def page_file(name: str) -> Response:
            if name not in self._files:
                raise Problem(HTTPStatus.NOT_FOUND, "There is no such file.")
            return file_response(self._files[name], self._headers)

        add_file(routes, path, self._page, self._headers)
        routes.add_api_route(f"{folder}/{{name}}", page_file, include_in_schema=False)


def add_file(
    routes: APIRouter, path: str, file: Path, headers: Mapping[str, str] = HEADERS
) -> None:
    """Serve one file at `path`."""

    async def static_file() -> Response:
        return file_response(file, headers)

    routes.add_api_route(path, static_file, include_in_schema=False)


def file_response(file: Path, headers: Mapping[str, str] = HEADERS) -> FileResponse:
    """One file, with the media type of its suffix."""
    return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=headers)
