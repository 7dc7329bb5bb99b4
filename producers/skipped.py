"""The files and folders that were skipped: counted and listed by reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple


class SkipReason(StrEnum):
    """Why a file or folder is not in the index."""

    NOT_AN_IMAGE = "not_a_picture"
    """Its first bytes are not those of an image."""
    OTHER_SUFFIX = "other_suffix"
    """Its name shows that it is not an image; it was not opened."""
    IGNORED = "ignored"
    """Hidden, temporary, or matched by an ignore rule. A folder stands for its whole content."""
    NOT_A_FILE = "not_a_file"
    """A link that is not followed, a pipe, a socket, a device."""
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    NAME_NOT_UTF8 = "name_not_utf8"
    UNSURE = "unsure"
    """The name does not decide, so the content is examined. Never a final reason."""


BY_NAME: Final = (SkipReason.OTHER_SUFFIX, SkipReason.IGNORED)
BY_CONTENT: Final = (
    SkipReason.NOT_AN_IMAGE,
    SkipReason.NOT_A_FILE,
    SkipReason.TOO_LARGE,
    SkipReason.UNREADABLE,
    SkipReason.NAME_NOT_UTF8,
)
MAX_NAMES: Final = 10_000
"""Maximum number of paths that are listed per reason and source; all are counted."""
_END: Final = "/\0"
"""Separates names. No name contains a slash, except at the end of a folder's."""


class Examined(NamedTuple):
    """The result of examining a file; no reason if it is an image or does not exist.

    `facts` are compared to see whether the file has changed since; None if nothing is known.
    """

    path: str
    reason: SkipReason | None
    facts: Hashable = None


class SkippedFiles:
    """The skipped files and folders of one source. Paths of folders end with a slash.

    There may be as many as there are images. Names that were skipped without opening the file are
    therefore stored as one string per folder. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[SkipReason, dict[str, str]] = {reason: {} for reason in BY_NAME}
        self._by_content: dict[SkipReason, dict[str, dict[str, Hashable]]] = {
            r: {} for r in BY_CONTENT
        }
        self._counts = dict.fromkeys((*BY_CONTENT, *BY_NAME), 0)
        self.version = 0
        """Increases with every change."""

    def counts(self) -> dict[str, int]:
        """Number of skipped paths by reason."""
        return {reason.value: count for reason, count in self._counts.items() if count}

    def names(self, limit: int = MAX_NAMES) -> dict[str, list[str]]:
        """Paths by reason, at most `limit` of each."""
        with self._lock:
            found = {
                reason: list(islice(self._paths(reason), limit))
                for reason, count in self._counts.items()
                if count
            }
        return {reason.value: paths for reason, paths in found.items()}

    def is_skipped(self, directory: str, name: str, facts: Hashable) -> bool:
        """Whether this file was examined and skipped before, and its facts are unchanged.

        False if `facts` is None, which means that they are not known.
        """
        return facts is not None and any(
            (files := self._by_content[reason].get(directory)) is not None
            and files.get(name) == facts
            for reason in (SkipReason.NOT_AN_IMAGE, SkipReason.TOO_LARGE)
        )

    def non_images(self) -> Iterator[tuple[str, Hashable]]:
        """Path and facts of all files that were examined and are not images."""
        with self._lock:
            found = [
                (_join(directory, name), facts)
                for directory, files in self._by_content[SkipReason.NOT_AN_IMAGE].items()
                for name, facts in files.items()
            ]
        yield from found

    def record(self, files: Iterable[Examined]) -> None:
        """Record the results of examining files."""
        with self._lock:
            for path, reason, facts in files:
                # Called for every file of a tree; in most trees none was skipped.
                others = [
                    each for each in BY_CONTENT if each is not reason and self._by_content[each]
                ]
                if reason is None and not others:
                    continue
                directory, _, name = _split(path)
                for each in others:
                    self._drop(each, directory, (name,))
                if reason is not None:
                    self._put(reason, directory, name, facts)

    def record_folder(
        self,
        directory: str,
        named: Mapping[SkipReason, Sequence[str]],
        present: Container[str],
    ) -> None:
        """Record the listing of a folder.

        Args:
            directory: path of the folder.
            named: names in it that are skipped.
            present: names in it that are examined.
        """
        parent, _, own = _split(f"{directory}/")
        with self._lock:
            for reason in BY_NAME:
                self._name(reason, directory, named.get(reason, ()))
            for reason in BY_CONTENT:
                if self._by_content[reason]:
                    files = self._by_content[reason].get(directory, ())
                    self._drop(reason, directory, [name for name in files if name not in present])
                    self._drop(reason, parent, (own,))
                for name in named.get(reason, ()):
                    self._put(reason, directory, name, None)

    def forget_folder(self, directory: str) -> None:
        """Forget a folder that no longer exists, and everything below it."""
        self._keep(lambda each: each != directory and not each.startswith(f"{directory}/"))
        parent, _, own = _split(f"{directory}/")
        with self._lock:
            for reason in BY_CONTENT:
                self._drop(reason, parent, (own,))

    def keep_only(self, directories: Container[str]) -> None:
        """Forget all folders but these."""
        self._keep(lambda each: each in directories)

    def apply_events(
        self, paths: Mapping[str, bool], judge: Callable[[str], SkipReason | None]
    ) -> None:
        """Record paths that appeared (True) or disappeared, if `judge` skips their names."""
        changed: dict[tuple[SkipReason, str], dict[str, bool]] = {}
        for path, there in paths.items():
            reason = judge(path)
            if reason in BY_NAME:
                directory, _, name = _split(path)
                changed.setdefault((reason, directory), {})[name] = there
        with self._lock:
            for (reason, directory), names in changed.items():
                packed = self._by_name[reason].get(directory)
                remaining = dict.fromkeys(packed.split(_END) if packed is not None else ())
                for name, there in names.items():
                    if there:
                        remaining[name] = None
                    else:
                        remaining.pop(name, None)
                self._name(reason, directory, remaining)

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        with self._lock:
            for reason in BY_NAME:
                for directory in [each for each in self._by_name[reason] if not wanted(each)]:
                    self._name(reason, directory, ())
            for reason in BY_CONTENT:
                for directory in [each for each in self._by_content[reason] if not wanted(each)]:
                    self._drop(reason, directory, list(self._by_content[reason][directory]))

    def _name(self, reason: SkipReason, directory: str, names: Iterable[str]) -> None:
        packed = _END.join(names)
        before = self._by_name[reason].pop(directory, "")
        if packed:
            self._by_name[reason][directory] = packed
        if packed != before:
            self._count(reason, _length(packed) - _length(before))

    def _put(self, reason: SkipReason, directory: str, name: str, facts: Hashable) -> None:
        files = self._by_content[reason].setdefault(directory, {})
        before = len(files)
        files[name] = facts
        self._count(reason, len(files) - before)

    def _drop(self, reason: SkipReason, directory: str, names: Iterable[str]) -> None:
        files = self._by_content[reason].get(directory)
        if files is None:
            return
        before = len(files)
        for name in names:
            files.pop(name, None)
        if len(files) != before:
            self._count(reason, len(files) - before)
        if not files:
            del self._by_content[reason][directory]

    def _count(self, reason: SkipReason, more: int) -> None:
        self._counts[reason] += more
        self.version += 1

    def _paths(self, reason: SkipReason) -> Iterator[str]:
        if reason in BY_NAME:
            for directory, packed in self._by_name[reason].items():
                yield from (_join(directory, name) for name in packed.split(_END))
        else:
            for directory, files in self._by_content[reason].items():
                yield from (_join(directory, name) for name in files)


def _split(path: str) -> tuple[str, str, str]:
    """Parent and name; the name of a folder keeps its slash."""
    directory, slash, name = path.removesuffix("/").rpartition("/")
    return directory, slash, f"{name}/" if path.endswith("/") else name


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _length(packed: str) -> int:
    return packed.count(_END) + 1 if packed else 0
