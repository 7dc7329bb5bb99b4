"""Whether the root of an image is present: a folder, a mount point or a bucket.

Only if its root is present does a missing file mean that the file itself is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters.errors import Rejected, Unavailable
from imaging.sources.mounts import MountTable
from imaging.sources.settings import SourceSettings
from imaging.sources.source import Source
from imaging.sources.storage import file_system, storage_errors
from schemas.events import ImageAdded


class Roots:
    """The roots named in the settings; for other images, the roots that their events imply."""

    def __init__(self, settings: SourceSettings) -> None:
        main = Source("", settings.images_dir.resolve().as_uri())
        self._prefixes = sorted(
            (source.uri_prefix for source in (main, *settings.images_sources)),
            key=len,
            reverse=True,
        )

    def find_missing(self, events: Iterable[ImageAdded]) -> str | None:
        """A description of the first root or mount of these images that is missing. Blocks.

        Raises:
            Unavailable: the storage cannot be checked now.
        """
        roots = {(self._root(event), event.mount) for event in events}
        problems = (root_problem(root, mount) for root, mount in sorted(roots, key=str))
        return next((problem for problem in problems if problem is not None), None)

    def _root(self, event: ImageAdded) -> str:
        """The URI of the image's root, with a trailing slash."""
        for prefix in self._prefixes:
            if event.uri.startswith(prefix):
                return prefix
        # The source is configured under another name here, or not at all any more.
        uri = event.uri
        for path in (event.image_id, event.image_id.partition("/")[2]):
            parts = path.count("/") + 1
            root, ending = _split(uri, parts)
            if path and unquote(ending) == path:
                return root
        return _split(uri, 1)[0]


def _split(uri: str, parts: int) -> tuple[str, str]:
    """The URI without its last `parts` path segments, and those segments."""
    pieces = uri.rsplit("/", parts)
    root = f"{pieces[0]}/"
    return root, uri[len(root) :]


def root_problem(root: str, mount: str | None = None) -> str | None:
    """Why a root (a URI with a trailing slash) or a mount point below it is unusable; None if both
    are present. Blocks.

    Raises:
        Unavailable: the storage cannot be checked now.
    """
    if root.startswith("file://"):
        return _folder_problem(Path(unquote(urlsplit(root).path)), mount)
    return _bucket_problem(root)


def _folder_problem(folder: Path, mount: str | None) -> str | None:
    try:
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        return f"the folder {folder} is missing: {error.strerror or error}"
    if is_empty:
        return f"the folder {folder} is empty, as if nothing were mounted there"
    if mount is not None and not MountTable.has(folder, mount):
        return f"nothing is mounted at {folder / mount}"
    return None


def _bucket_problem(root: str) -> str | None:
    try:
        system, path = file_system(root)
    except Rejected as error:
        raise Unavailable(str(error)) from error
    container = path.strip("/").partition("/")[0]
    if not container:
        return None
    # An empty folder in a bucket does not exist, an empty bucket does: so check only the bucket.
    with storage_errors(root):
        system.invalidate_cache()
        return None if system.exists(container) else f"{root}: there is no {container}"
