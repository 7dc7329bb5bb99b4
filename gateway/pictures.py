"""Serving the indexed pictures, and nothing else of the file system."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path

from starlette.responses import FileResponse, Response

from adapters.media_types import sniff_media_type
from adapters.settings import SourceSettings
from adapters.sources import Source
from adapters.storage import read_bytes
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


def response(settings: SourceSettings, name: str, limit: int) -> Response:
    """The picture of an image id with its ETag, from the main folder or another source.

    Blocks. Objects of a bucket are held in memory for the answer, up to `limit` bytes.

    Raises:
        Problem: 404 for whatever is no picture of a source, 413 for one over `limit`.
        Unavailable: the bucket cannot be reached now.
    """
    source = next((s for s in settings.images_sources if name.startswith(s.prefix)), None)
    if source is not None and not source.is_local:
        return _from_bucket(source, name.removeprefix(source.prefix), limit)
    if source is not None:
        path, media_type = find(source.folder, name.removeprefix(source.prefix))
    else:
        path, media_type = find(settings.images_dir, name)
    return FileResponse(path, media_type=media_type, headers=HEADERS, stat_result=path.stat())


def _from_bucket(source: Source, path: str, limit: int) -> Response:
    missing = Problem(HTTPStatus.NOT_FOUND, "There is no such picture.")
    parts = path.split("/")
    if "\0" in path or ".." in parts or "." in parts or "" in parts:
        raise missing
    try:
        data = read_bytes(source.uri(path), limit + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise missing from error
    if len(data) > limit:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The picture is too large to serve.")
    media_type = sniff_media_type(data[:64])
    if media_type is None:
        raise missing
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return Response(data, media_type=media_type, headers={**HEADERS, "ETag": tag})
