"""Compares the listing of a bucket with the known images, one folder in memory at a time.

fsspec returns all names of a folder at once, so the largest folder determines the memory needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from imaging.sources.source import Source
from imaging.sources.storage import file_system, storage_errors
from producers.known_image import KnownImage, to_microseconds
from producers.log.known_images import KnownImages
from producers.paths import join
from producers.rules import TO_EXAMINE, Rules
from producers.skipped import SkippedFiles, SkipReason

BATCH: Final = 256
"""Number of names per batch."""

_SIZE_KEYS: Final = ("size", "Size")
_TIME_KEYS: Final = ("LastModified", "mtime", "last_modified", "updated", "created")
_TAG_KEYS: Final = ("ETag", "etag", "md5Hash", "content_md5")


class ListedObject(NamedTuple):
    """An object as listed: size in bytes, microseconds since 1970, and a tag of the content.

    Properties that the listing lacks are None. Only a hash of the tag is stored, as there may be
    millions: Python's hash, or a stable one if the name does not show whether it is an image.
    """

    size: int | None
    modified_us: int | None
    tag: int | None

    @property
    def content(self) -> tuple[int | None, int] | None:
        """Changes with the content: size, and tag or else time; None if neither is known."""
        last = self.modified_us if self.tag is None else self.tag
        return None if last is None else (self.size, last)


class BucketListing:
    """Compares one source with its known images; counts the objects it has seen.

    Args:
        source: the source to list.
        rules: which names are taken.
        state: the known images; must not change while an iterator of this class is advanced.
        skipped: the skipped files known so far; updated by each listing.
    """

    def __init__(
        self, source: Source, rules: Rules, state: KnownImages, skipped: SkippedFiles | None = None
    ) -> None:
        self._source = source
        self._rules = rules
        self._state = state
        self._skipped = skipped or SkippedFiles()
        self._tags: dict[str, dict[str, int]] = {}
        self.examined = 0

    def changes(
        self, again: Container[str], unread: Container[str], missing: list[str]
    ) -> Iterator[list[tuple[str, ListedObject]]]:
        """New and changed objects, in batches. Blocks: advance it in a thread.

        Args:
            again: paths that count as changed even if the listing shows no change.
            unread: paths that could not be read before, which count as changed too.
            missing: receives the paths that are known and not listed.

        Raises:
            FileNotFoundError: there is no such bucket.
            Unavailable: the listing is incomplete, so nothing is known to be missing.
        """
        batch: list[tuple[str, ListedObject]] = []
        met = set[str]()
        for folder, folders, files in self._folders(note=True):
            met.add(folder)
            tags = self._tags.get(folder, {})
            for name, listed in files.items():
                path, known = join(folder, name), self._state.files(folder).get(name)
                forced = path in again or path in unread
                if (
                    known is None
                    and not forced
                    and self._skipped.is_skipped(folder, name, listed.content)
                ):
                    continue
                if forced or _differs(known, listed, tags.get(name)):
                    batch.append((path, listed))
                    if len(batch) == BATCH:
                        yield batch
                        batch = []
                elif listed.tag is not None:
                    self.remember_tag(path, listed)
            missing.extend(self._missing(folder, folders, files))
            for name in [each for each in tags if each not in files]:
                self.forget(join(folder, name))
            # While fsspec caches the folder's names, reading its objects costs one request less.
            if batch:
                yield batch
                batch = []
        self._skipped.keep_only(met)
        for folder in self._tags.keys() - met:
            del self._tags[folder]

    def missing(self) -> tuple[list[str], int]:
        """Known paths that are not listed, and the number of listed files. Raises as `changes`."""
        missing: list[str] = []
        count = 0
        for folder, folders, files in self._folders():
            missing.extend(self._missing(folder, folders, files))
            count += len(files)
        return missing, count

    def remember_tag(self, path: str, listed: ListedObject) -> None:
        """Record that the known content of this path is the listed one."""
        folder, _, name = path.rpartition("/")
        if listed.tag is not None:
            self._tags.setdefault(folder, {})[name] = listed.tag

    def forget(self, path: str) -> None:
        """Forget the tag of a path that no longer exists."""
        folder, _, name = path.rpartition("/")
        tags = self._tags.get(folder, {})
        tags.pop(name, None)
        if not tags:
            self._tags.pop(folder, None)

    def _missing(
        self, folder: str, folders: Container[str], files: Container[str]
    ) -> Iterator[str]:
        yield from (join(folder, name) for name in self._state.files(folder) if name not in files)
        for name in self._state.folders(folder):
            if name not in folders:
                yield from self._state.below(join(folder, name))

    def _folders(
        self, *, note: bool = False
    ) -> Iterator[tuple[str, Container[str], Mapping[str, ListedObject]]]:
        """Each folder: its path, the names of its subfolders, and the files that may be images.

        Yields at least the source itself. With `note`, skipped names are recorded.
        """
        system, root = file_system(self._source.url)
        root = root.rstrip("/")
        listed = False

        def failed(error: OSError) -> None:
            # A folder that was emptied meanwhile no longer exists; the next listing shows it.
            if not isinstance(error, FileNotFoundError) or not listed:
                raise error

        with storage_errors(f"list {self._source.url}"):
            system.invalidate_cache()
            try:
                for path, folders, files in system.walk(root, detail=True, on_error=failed):
                    listed = True
                    folder = path[path.index(root) + len(root) :].strip("/")
                    yield folder, folders, self._images(folder, files, note=note)
                    system.invalidate_cache(path)
            except FileNotFoundError:
                # An empty folder of a bucket does not exist; an empty bucket does.
                container = root.strip("/").partition("/")[0]
                if listed or container == root or not system.exists(container):
                    raise
                yield "", (), {}

    def _images(
        self, folder: str, files: Mapping[str, Mapping[str, Any]], *, note: bool
    ) -> dict[str, ListedObject]:
        self.examined += len(files) or 1
        found: dict[str, ListedObject] = {}
        named: dict[SkipReason, list[str]] = {}
        entered = self._rules.reaches(folder)
        for name, info in files.items():
            if not name:  # An object that stands for the folder.
                continue
            reason = self._rules.judge(folder, name) if entered else SkipReason.IGNORED
            if reason in TO_EXAMINE:
                found[name] = _listed_object(info, stable=reason is SkipReason.UNSURE)
            else:
                named.setdefault(reason, []).append(name)
        if note:
            self._skipped.record_folder(folder, named, found)
        return found


def _differs(known: KnownImage | None, listed: ListedObject, tag: int | None) -> bool:
    """Whether the object may differ from the known image; `tag` is the known content's."""
    if known is None or known.sha256 is None or known.stat is None or not known.uri_is_current:
        return True
    if listed.size is not None and listed.size != known.stat.size:
        return True
    if listed.tag is not None and tag is not None and listed.tag != tag:
        return True
    if listed.modified_us is None:
        return listed.tag is None or tag is None  # Nothing shows that it is unchanged.
    return listed.modified_us != known.stat.modified_us


def _listed_object(info: Mapping[str, Any], *, stable: bool = False) -> ListedObject:
    size, moment, tag = (_first(info, keys) for keys in (_SIZE_KEYS, _TIME_KEYS, _TAG_KEYS))
    return ListedObject(
        None if size is None else int(size),
        _microseconds(moment),
        None if tag is None else (_stable_hash if stable else hash)(str(tag)),
    )


def _stable_hash(tag: str) -> int:
    digest = hashlib.blake2b(tag.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest)


def _microseconds(moment: object) -> int | None:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    if isinstance(moment, datetime):
        return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return int(moment * 1e6) if isinstance(moment, int | float) else None


def _first(info: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((info[key] for key in keys if info.get(key) is not None), None)
