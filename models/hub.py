"""Downloads of the immich-app layout from a hub, resumed where they broke off, and checked.

huggingface_hub does the transfer: it honours HF_ENDPOINT and HF_TOKEN, shows progress, keeps parts
in its own cache and compares sizes and checksums. What is added here: only the files that are
served, and a SHA-256 of each, which the next download of the same revision has to give again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from adapters.errors import Rejected, Unavailable, translated

WANTED = (
    "config.json",
    "visual/*.json",
    "visual/model.onnx*",
    "textual/*.json",
    "textual/model.onnx*",
    "visual/*.data",
    "textual/*.data",
    "visual/*.weight",
    "textual/*.weight",
)
UNWANTED = ("*.armnn", "*/fp16/*", "*/rknpu/*")
# The base of its HTTP client's errors; which client that is has changed more than once.
_TRANSPORT = HfHubHTTPError.__bases__[0]
# RuntimeError: after a failed connection it closes the client that its other threads still use.
_DOWN = (OSError, _TRANSPORT, LocalEntryNotFoundError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Download:
    """A complete folder; `commit` is what the revision stood for, `files` maps path to SHA-256."""

    folder: Path
    commit: str
    files: dict[str, str]


def download(repository: str, revision: str, cache: Path, endpoint: str | None = None) -> Download:
    """Fetch a repository's files into `cache`, or what of them is missing there.

    Raises:
        Unavailable: the hub cannot be reached; what has arrived is kept for the next time.
        Rejected: the hub has no such repository or revision.
    """
    where = endpoint or os.environ.get("HF_ENDPOINT")
    try:
        with translated(f"download {repository}", unavailable=_DOWN):
            info = HfApi(endpoint=where).model_info(repository, revision=revision)
            commit = info.sha or revision
            folder = Path(
                snapshot_download(
                    repository,
                    revision=commit,
                    cache_dir=cache,
                    endpoint=where,
                    allow_patterns=list(WANTED),
                    ignore_patterns=list(UNWANTED),
                )
            )
    except Unavailable as error:
        cause = error.__cause__
        response = cause.response if isinstance(cause, HfHubHTTPError) else None
        if response is not None and 400 <= response.status_code < 500:
            raise Rejected(f"{repository} at {revision}: {cause}") from error
        raise
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                files[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return Download(folder, commit, files)
