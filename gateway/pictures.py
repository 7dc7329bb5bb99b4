"""Serving the indexed pictures, and nothing else of the file system."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from starlette.responses import FileResponse

from adapters.media_types import sniff_media_type
from gateway.problems import Problem

HEADERS = {
    "Cache-Control": "private, max-age=60",
    "X-Content-Type-Options": "nosniff",
    # A picture opened on its own is data, whatever a browser might make of it.
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def find(root: Path, name: str) -> tuple[Path, str]:
    """The file of an image id below `root`, and its media type by content.

    Raises:
        Problem: 404 for whatever is not a picture inside the root, links out of it included.
    """
    missing = Problem(HTTPStatus.NOT_FOUND, "There is no such picture.")
    if "\0" in name:
        raise missing
    try:
        base = root.resolve(strict=True)
        path = (base / name).resolve(strict=True)
        if not path.is_relative_to(base) or not path.is_file():
            raise missing
        with path.open("rb") as file:
            media_type = sniff_media_type(file.read(64))
    except (OSError, ValueError, RuntimeError) as error:
        raise missing from error
    if media_type is None:
        raise missing
    return path, media_type


def response(root: Path, name: str) -> FileResponse:
    """The picture with its ETag; raises as `find`."""
    path, media_type = find(root, name)
    return FileResponse(path, media_type=media_type, headers=HEADERS, stat_result=path.stat())
