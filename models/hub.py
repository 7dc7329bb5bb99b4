"""Resumable, verified downloads of models in immich-app's layout from a hub.

huggingface_hub does the transfer: it honours HF_ENDPOINT and HF_TOKEN, shows progress, keeps parts
in its own cache and compares sizes and checksums. This module adds the selection of the files that
are served, and the SHA-256 of each, which later downloads of the same revision must reproduce.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from models.hub_errors import hub_errors

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


@dataclass(frozen=True, slots=True)
class Download:
    """A complete download; `commit` is the resolved revision, `files` maps path to SHA-256."""

    folder: Path
    commit: str
    files: dict[str, str]


def download(repository: str, revision: str, cache: Path, endpoint: str | None = None) -> Download:
    """Fetch a repository's files into `cache`; files that are already there are not fetched again.

    Raises:
        Unavailable: the hub cannot be reached; the next call resumes the download.
        Rejected: the hub has no such repository or revision.
    """
    where = endpoint or os.environ.get("HF_ENDPOINT")
    with hub_errors(f"download {repository} at {revision}"):
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
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                files[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return Download(folder, commit, files)
