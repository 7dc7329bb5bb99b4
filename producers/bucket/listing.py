"""What a bucket holds against what is known of it: read in threads, one folder in memory at a time.

fsspec gives a folder's names as a whole, so the largest folder sets how much memory that takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from imaging.sources.source import Source
from imaging.sources.storage import file_system, reaching
from producers.folder.tree import Known, join, to_microseconds
from producers.known_images import State
from producers.rules import LOOKED_AT, Rules
from producers.skipped import Passed, Reason

BATCH: Final = 256
"""Names that are handed on together."""

_SIZE_KEYS: Final = ("size", "Size")
_TIME_KEYS: Final = ("LastModified", "mtime", "last_modified", "updated", "created")
_TAG_KEYS: Final = ("ETag", "etag", "md5Hash", "content_md5")


class Stated(NamedTuple):
    """What a listing says of an object: size, microseconds since 1970, and a tag of the content.

    What it does not say is None. Of the tag only a hash is kept, as there may be millions: one of
    this process's own, or a number that lasts where the name does not tell what the object is.
    """

    size: int | None
    modified_us: int | None
    tag: int | None

    @property
    def content(self) -> tuple[int | None, int] | None:
        """Differs where the content does: by the tag or, without one, the time. None: not known."""
        last = self.modified_us if self.tag is None else self.tag
        return None if last is None else (self.size, last)


class Listing:
    """Compares one source with its state, again and again; counts what it has looked at.

    Args:
        source: what is listed.
        rules: which names are taken.
        state: what is known of the source; changed only while no iterator of here is advanced.
        passed: what was found to be no picture before; told of what is passed over.
    """

    def __init__(
        self, source: Source, rules: Rules, state: State, passed: Passed | None = None
    ) -> None:
        self._source = source
        self._rules = rules
        self._state = state
        self._passed = passed or Passed()
        self._tags: dict[str, dict[str, int]] = {}
        self.looked_at = 0

    def changes(
        self, again: Container[str], unread: Container[str], missing: list[str]
    ) -> Iterator[list[tuple[str, Stated]]]:
        """What is new or differs, in batches. Blocks: advance it in a thread.

        Args:
            again: paths to be taken for changed whatever the listing says.
            unread: the same, as they could not be read.
            missing: at the end holds the paths that are known and not listed.

        Raises:
            FileNotFoundError: there is no such bucket.
            Unavailable: it cannot be listed to the end, so that nothing is known to be missing.
        """
        batch: list[tuple[str, Stated]] = []
        met = set[str]()
        for folder, folders, files in self._folders(note=True):
            met.add(folder)
            tags = self._tags.get(folder, {})
            for name, stated in files.items():
                path, known = join(folder, name), self._state.files(folder).get(name)
                asked = path in again or path in unread
                if (
                    known is None
                    and not asked
                    and self._passed.is_decided(folder, name, stated.content)
                ):
                    continue
                if asked or _differs(known, stated, tags.get(name)):
                    batch.append((path, stated))
                    if len(batch) == BATCH:
                        yield batch
                        batch = []
                elif stated.tag is not None:
                    self.read(path, stated)
            missing.extend(self._missing(folder, folders, files))
            for name in [each for each in tags if each not in files]:
                self.forget(join(folder, name))
            # While the folder's names are in fsspec's memory, its pictures cost a request less.
            if batch:
                yield batch
                batch = []
        self._passed.only(met)
        for folder in self._tags.keys() - met:
            del self._tags[folder]

    def missing(self) -> tuple[list[str], int]:
        """What is known and not listed, and how many pictures are. Blocks; raises as `changes`."""
        missing: list[str] = []
        count = 0
        for folder, folders, files in self._folders():
            missing.extend(self._missing(folder, folders, files))
            count += len(files)
        return missing, count

    def read(self, path: str, stated: Stated) -> None:
        """What is known of this path is what was stated."""
        folder, _, name = path.rpartition("/")
        if stated.tag is not None:
            self._tags.setdefault(folder, {})[name] = stated.tag

    def forget(self, path: str) -> None:
        """The path is gone."""
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
    ) -> Iterator[tuple[str, Container[str], Mapping[str, Stated]]]:
        """Each folder, the names of those in it, and what may be its pictures.

        There is at least the source itself. With `note`, what is passed over is remembered.
        """
        system, root = file_system(self._source.url)
        root = root.rstrip("/")
        listed = False

        def failed(error: OSError) -> None:
            # One that was emptied meanwhile is none any more; the next listing tells what is.
            if not isinstance(error, FileNotFoundError) or not listed:
                raise error

        with reaching(f"list {self._source.url}"):
            system.invalidate_cache()
            try:
                for place, folders, files in system.walk(root, detail=True, on_error=failed):
                    listed = True
                    folder = place[place.index(root) + len(root) :].strip("/")
                    yield folder, folders, self._pictures(folder, files, note=note)
                    system.invalidate_cache(place)
            except FileNotFoundError:
                # A folder of a bucket that holds nothing is not there at all; a bucket is.
                container = root.strip("/").partition("/")[0]
                if listed or container == root or not system.exists(container):
                    raise
                yield "", (), {}

    def _pictures(
        self, folder: str, files: Mapping[str, Mapping[str, Any]], *, note: bool
    ) -> dict[str, Stated]:
        self.looked_at += len(files) or 1
        found: dict[str, Stated] = {}
        named: dict[Reason, list[str]] = {}
        entered = self._rules.reaches(folder)
        for name, info in files.items():
            if not name:  # An object that stands for the folder.
                continue
            reason = self._rules.judge(folder, name) if entered else Reason.IGNORED
            if reason in LOOKED_AT:
                found[name] = _stated(info, lasting=reason is Reason.UNSURE)
            else:
                named.setdefault(reason, []).append(name)
        if note:
            self._passed.listed(folder, named, found)
        return found


def _differs(known: Known | None, stated: Stated, tag: int | None) -> bool:
    """`tag` is that of the content that is known."""
    if known is None or known.sha256 is None or known.stat is None or not known.uri_is_current:
        return True
    if stated.size is not None and stated.size != known.stat.size:
        return True
    if stated.tag is not None and tag is not None and stated.tag != tag:
        return True
    if stated.modified_us is None:
        return stated.tag is None or tag is None  # Nothing says that it is the same.
    return stated.modified_us != known.stat.modified_us


def _stated(info: Mapping[str, Any], *, lasting: bool = False) -> Stated:
    size, moment, tag = (_first(info, keys) for keys in (_SIZE_KEYS, _TIME_KEYS, _TAG_KEYS))
    return Stated(
        None if size is None else int(size),
        _microseconds(moment),
        None if tag is None else (_lasting if lasting else hash)(str(tag)),
    )


def _lasting(tag: str) -> int:
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
