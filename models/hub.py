"""Resumable, verified downloads of models in immich-app's layout from a hub.

huggingface_hub does each transfer: it honours HF_ENDPOINT and HF_TOKEN, and repeats a request that
was interrupted. This module selects the files that are served, keeps what has arrived across
restarts (the library's own cache discards a file that is not complete when its process ends), and
compares each file with the size and checksum that the hub states, or that the catalogue pins. The
SHA-256 of each file is recorded; later downloads of the same revision must reproduce it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Final

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile

from adapters.errors import Rejected, Unavailable
from models.catalogue import CatalogueEntry
from models.hub_errors import hub_errors
from models.store import Origin

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
LOCK_SECONDS: Final = 5.0
PART: Final = ".part"
COMMIT: Final = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository; the hub states a SHA-256 for large files, a Git object id for all."""

    size: int
    blob_id: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class RepositoryFiles:
    """The wanted files of a repository at a commit, by path; nothing has been downloaded."""

    repository: str
    commit: str
    files: Mapping[str, HubFile]
    endpoint: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files.values())


@dataclass(frozen=True, slots=True)
class Download:
    """A complete download; `commit` is the resolved revision, `files` maps path to SHA-256."""

    folder: Path
    commit: str
    files: dict[str, str]


def listing(
    repository: str,
    revision: str,
    endpoint: str | None = None,
    *,
    pinned: Mapping[str, str] | None = None,
) -> RepositoryFiles:
    """The files of a repository that a download fetches.

    Args:
        repository: its name at the hub.
        revision: a commit, tag or branch.
        endpoint: the hub's URL, if HF_ENDPOINT does not name it.
        pinned: the SHA-256 that a file must have, by path, whatever the hub states.

    Raises:
        Unavailable: the hub cannot be reached.
        Rejected: the hub has no such repository or revision, or has another content under it.
    """
    where = endpoint or os.environ.get("HF_ENDPOINT") or None
    with hub_errors(f"list {repository} at {revision}"):
        api = HfApi(endpoint=where)
        commit = api.model_info(repository, revision=revision).sha or revision
        tree = api.list_repo_tree(repository, recursive=True, revision=commit)
        found = [each for each in tree if isinstance(each, RepoFile)]
    if COMMIT.fullmatch(revision) and commit != revision:
        raise Rejected(f"{repository}: the hub gives commit {commit} instead of {revision}")
    files = {}
    for each in sorted(found, key=lambda each: each.path):
        if not _is_wanted(each.path):
            continue
        if not {"..", ""}.isdisjoint(PurePosixPath(each.path).parts) or each.path.startswith("/"):
            raise Rejected(f"{repository} lists a file outside itself: {each.path!r}")
        files[each.path] = HubFile(each.size, each.blob_id, each.lfs.sha256 if each.lfs else None)
    for path, sha256 in (pinned or {}).items():
        if path not in files or files[path].sha256 not in (None, sha256):
            raise Rejected(f"{repository}/{path} is not the file that the catalogue names")
        files[path] = replace(files[path], sha256=sha256)
    return RepositoryFiles(repository, commit, files, where)


def _is_wanted(path: str) -> bool:
    wanted = any(fnmatch(path, pattern) for pattern in WANTED)
    return wanted and not any(fnmatch(path, pattern) for pattern in UNWANTED)


def folder_of(cache: Path, repository: str) -> Path:
    """The folder in `cache` for the downloads of a repository, one sub-folder for each commit."""
    return cache / repository.replace("/", "--")


def bytes_here(cache: Path, listed: RepositoryFiles) -> int:
    """Bytes of these files that have been downloaded already."""
    folder, found = folder_of(cache, listed.repository) / listed.commit, 0
    for path in listed.files:
        for each in (folder / path, folder / f"{path}{PART}"):
            try:
                found += each.stat().st_size
                break
            except FileNotFoundError:
                continue
    return found


def download(
    repository: str,
    revision: str,
    cache: Path,
    endpoint: str | None = None,
    *,
    pinned: Mapping[str, str] | None = None,
) -> Download:
    """Fetch a repository's files into `cache`; what is already there is not fetched again.

    Raises:
        Unavailable: the hub cannot be reached; the next call resumes the download.
        Rejected: as for `listing`.
        OSError: a folder cannot be made, or a file cannot be read.
    """
    return fetch(listing(repository, revision, endpoint, pinned=pinned), cache)


def _nothing(_: int) -> None:
    """Ignores how much has passed."""


def fetch(
    listed: RepositoryFiles, cache: Path, passed: Callable[[int], None] = _nothing
) -> Download:
    """Fetch these files into `cache`; a file that is incomplete there is resumed.

    After each file, `passed` is called with the bytes of all files that agree with their checksum.

    Raises:
        Unavailable: the hub cannot be reached, a file differs from what it stated, or another
            process downloads the same files. The next call resumes the download.
        Rejected: the hub refuses a file.
        OSError: a folder cannot be made, or a file cannot be read.
    """
    root = folder_of(cache, listed.repository)
    root.mkdir(parents=True, exist_ok=True)
    folder, verified = root / listed.commit, 0
    hashes: dict[str, str] = {}
    try:
        with FileLock(root / ".lock", timeout=LOCK_SECONDS):
            for path, stated in listed.files.items():
                target = folder / path
                if not target.is_file():
                    _fetch(listed, path, target)
                hashes[path] = _check(target, stated, f"{listed.repository}/{path}")
                verified += stated.size
                passed(verified)
    except Timeout as error:
        raise Unavailable(f"another process is downloading {listed.repository}") from error
    return Download(folder, listed.commit, hashes)


def discard(cache: Path, repository: str) -> bool:
    """Delete what was downloaded of a repository, unless another process downloads it now; returns
    whether nothing is left."""
    root = folder_of(cache, repository)
    if not root.exists():
        return True
    try:
        with FileLock(root / ".lock", timeout=0):
            shutil.rmtree(root, ignore_errors=True)
    except (Timeout, OSError):
        return False
    return not root.exists()


def origin(entry: CatalogueEntry, got: Download) -> Origin:
    """What is recorded with a model of the catalogue that was downloaded."""
    return Origin(
        source=entry.repository or "", revision=got.commit, licence=entry.licence, files=got.files
    )


def _fetch(listed: RepositoryFiles, path: str, target: Path) -> None:
    part = target.with_name(f"{target.name}{PART}")
    with hub_errors(f"download {listed.repository}/{path}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        size, token = listed.files[path].size, get_token()
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        with part.open("ab") as file:
            file.seek(0, os.SEEK_END)
            http_get(
                hf_hub_url(
                    listed.repository, path, revision=listed.commit, endpoint=listed.endpoint
                ),
                file,
                resume_size=file.tell(),
                headers={"authorization": f"Bearer {token}"} if token else {},
                expected_size=size,
                displayed_filename=path,
            )
        part.replace(target)


def _check(path: Path, stated: HubFile, name: str) -> str:
    """The SHA-256 of a complete file.

    Raises:
        Unavailable: it differs from what the hub states; it was deleted, and is fetched again by
            the next call.
    """
    blob = hashlib.sha1(b"blob %d\0" % stated.size, usedforsecurity=False)
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size += len(piece)
            sha256.update(piece)
            if stated.sha256 is None:
                blob.update(piece)
    found = sha256.hexdigest()
    same = blob.hexdigest() == stated.blob_id if stated.sha256 is None else found == stated.sha256
    if size == stated.size and same:
        return found
    path.unlink()
    raise Unavailable(f"{name} is damaged: it differs from the checksum that the hub states")
