"""Serving the indexed pictures, and nothing else of the file system."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.responses import FileResponse, Response

from adapters.media_types import sniff_media_type
from adapters.settings import SourceSettings
from adapters.storage import file_system, reaching, read_bytes
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
    missing = _missing()
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


@dataclass(frozen=True, slots=True)
class Found:
    """A picture: what tells this content of it from another, and how to have its bytes."""

    identity: str
    read: Callable[[], bytes]


class Pictures:
    """The pictures of the main folder and of every other source. All methods block."""

    def __init__(self, settings: SourceSettings, *, max_bytes: int) -> None:
        """Objects of a bucket are held in memory while they are sent, up to `max_bytes`."""
        self._main = settings.images_dir
        self._sources = settings.images_sources
        self._max_bytes = max_bytes

    def response(self, name: str) -> Response:
        """The picture of an image id with its ETag.

        Raises:
            Problem: 404 for whatever is no picture of a source, 413 for one that is too large.
            Unavailable: the bucket cannot be reached now.
        """
        place = self._place(name)
        if isinstance(place, str):
            data = self._read(place)
            media_type = sniff_media_type(data[:64])
            if media_type is None:
                raise _missing()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            return Response(data, media_type=media_type, headers={**HEADERS, "ETag": tag})
        path, media_type = find(*place)
        return FileResponse(path, media_type=media_type, headers=HEADERS, stat_result=path.stat())

    def find(self, name: str) -> Found:
        """The picture of an image id, unread; raises as `response`."""
        place = self._place(name)
        if isinstance(place, str):
            system, path = file_system(place)
            try:
                with reaching(place):
                    info = system.info(path)
            except FileNotFoundError as error:
                raise _missing() from error
            if info.get("type") != "file":
                raise _missing()
            facts = [str(info.get(key)) for key in ("ETag", "LastModified", "mtime", "size")]
            return Found("\0".join([place, *facts]), lambda: self._read(place))
        local, _ = find(*place)
        status = local.stat()
        # A picture that changes has another time.
        return Found(
            f"{local}\0{status.st_mtime_ns}\0{status.st_size}",
            lambda: self._read(local.as_uri()),
        )

    def _place(self, name: str) -> str | tuple[Path, str]:
        """A bucket's URI, or a folder and the path below it."""
        source = next((each for each in self._sources if name.startswith(each.prefix)), None)
        if source is None:
            return self._main, name
        path = name.removeprefix(source.prefix)
        if source.is_local:
            return source.folder, path
        if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise _missing()
        return source.uri(path)

    def _read(self, uri: str) -> bytes:
        try:
            data = read_bytes(uri, self._max_bytes + 1)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise _missing() from error
        if len(data) > self._max_bytes:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The picture is too large.")
        return data


def _missing() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "There is no such picture.")
