"""What was passed over, and why: counted, and listed for who asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple


class Reason(StrEnum):
    """Why there is nothing in the index of a file or folder."""

    NOT_A_PICTURE = "not_a_picture"
    """Its first bytes are those of no picture."""
    OTHER_SUFFIX = "other_suffix"
    """Its name says that it is no picture, and it was not opened."""
    IGNORED = "ignored"
    """Hidden, temporary, or by an ignore rule; of a folder, with all that is in it."""
    NOT_A_FILE = "not_a_file"
    """A link that is not followed, a pipe, a socket, a device."""
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    NAME_NOT_UTF8 = "name_not_utf8"
    UNSURE = "unsure"
    """Nothing is known by its name: no reason in the end, it is looked into."""


BY_NAME: Final = (Reason.OTHER_SUFFIX, Reason.IGNORED)
BY_LOOK: Final = (
    Reason.NOT_A_PICTURE,
    Reason.NOT_A_FILE,
    Reason.TOO_LARGE,
    Reason.UNREADABLE,
    Reason.NAME_NOT_UTF8,
)
MOST_NAMES: Final = 10_000
"""Of one reason in one source that are listed; all are counted."""
_END: Final = "/\0"
"""Between names: a slash is in none but at the end of a folder's."""


class Look(NamedTuple):
    """What a look at a file came to; no reason if it is a picture, or is not there.

    `facts` tell whether the file is still what was looked at; None says nothing.
    """

    path: str
    reason: Reason | None
    facts: Hashable = None


class Passed:
    """What was passed over in one source; of a folder, its path ends with a slash.

    There may be as many as there are pictures. So of those that the name decided, the names of one
    folder are one text. Methods may be called in any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[Reason, dict[str, str]] = {reason: {} for reason in BY_NAME}
        self._looked: dict[Reason, dict[str, dict[str, Hashable]]] = {r: {} for r in BY_LOOK}
        self._counts = dict.fromkeys((*BY_LOOK, *BY_NAME), 0)
        self.version = 0
        """Another one whenever something changed."""

    def counts(self) -> dict[str, int]:
        """How many there are, by reason."""
        return {reason.value: count for reason, count in self._counts.items() if count}

    def names(self, most: int = MOST_NAMES) -> dict[str, list[str]]:
        """Paths by reason, at most so many of each, those of a folder in order."""
        with self._lock:
            found = {
                reason: list(islice(self._paths(reason), most))
                for reason, count in self._counts.items()
                if count
            }
        return {reason.value: paths for reason, paths in found.items()}

    def is_decided(self, directory: str, name: str, facts: Hashable) -> bool:
        """Whether this file was looked into and passed over for what it is, with the same facts.

        Facts that are None say nothing.
        """
        return facts is not None and any(
            (files := self._looked[reason].get(directory)) is not None and files.get(name) == facts
            for reason in (Reason.NOT_A_PICTURE, Reason.TOO_LARGE)
        )

    def no_pictures(self) -> Iterator[tuple[str, Hashable]]:
        """Path and facts of all files that were looked into and are no pictures."""
        with self._lock:
            found = [
                (_joined(directory, name), facts)
                for directory, files in self._looked[Reason.NOT_A_PICTURE].items()
                for name, facts in files.items()
            ]
        yield from found

    def looked(self, looks: Iterable[Look]) -> None:
        """Remember what is passed over of these, and forget that the others were."""
        with self._lock:
            for path, reason, facts in looks:
                # Of most trees nothing is remembered, and all of them are looked at.
                others = [each for each in BY_LOOK if each is not reason and self._looked[each]]
                if reason is None and not others:
                    continue
                directory, _, name = _parted(path)
                for each in others:
                    self._drop(each, directory, (name,))
                if reason is not None:
                    self._put(reason, directory, name, facts)

    def listed(
        self,
        directory: str,
        named: Mapping[Reason, Sequence[str]],
        present: Container[str],
    ) -> None:
        """A folder was listed.

        Args:
            directory: which.
            named: the names that are passed over in it.
            present: all names in it that are looked at.
        """
        parent, _, own = _parted(f"{directory}/")
        with self._lock:
            for reason in BY_NAME:
                self._name(reason, directory, named.get(reason, ()))
            for reason in BY_LOOK:
                if self._looked[reason]:
                    files = self._looked[reason].get(directory, ())
                    self._drop(reason, directory, [name for name in files if name not in present])
                    self._drop(reason, parent, (own,))
                for name in named.get(reason, ()):
                    self._put(reason, directory, name, None)

    def gone(self, directory: str) -> None:
        """A folder is not there any more, nor anything below it."""
        self._keep(lambda each: each != directory and not each.startswith(f"{directory}/"))
        parent, _, own = _parted(f"{directory}/")
        with self._lock:
            for reason in BY_LOOK:
                self._drop(reason, parent, (own,))

    def only(self, directories: Container[str]) -> None:
        """There are no other folders than these."""
        self._keep(lambda each: each in directories)

    def happened(self, paths: Mapping[str, bool], judge: Callable[[str], Reason | None]) -> None:
        """Files or folders that came (True) or went, which `judge` may pass over by name."""
        coming: dict[tuple[Reason, str], dict[str, bool]] = {}
        for path, there in paths.items():
            reason = judge(path)
            if reason in BY_NAME:
                directory, _, name = _parted(path)
                coming.setdefault((reason, directory), {})[name] = there
        with self._lock:
            for (reason, directory), names in coming.items():
                packed = self._named[reason].get(directory)
                kept = dict.fromkeys(packed.split(_END) if packed is not None else ())
                for name, there in names.items():
                    if there:
                        kept[name] = None
                    else:
                        kept.pop(name, None)
                self._name(reason, directory, kept)

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        with self._lock:
            for reason in BY_NAME:
                for directory in [each for each in self._named[reason] if not wanted(each)]:
                    self._name(reason, directory, ())
            for reason in BY_LOOK:
                for directory in [each for each in self._looked[reason] if not wanted(each)]:
                    self._drop(reason, directory, list(self._looked[reason][directory]))

    def _name(self, reason: Reason, directory: str, names: Iterable[str]) -> None:
        packed = _END.join(names)
        before = self._named[reason].pop(directory, "")
        if packed:
            self._named[reason][directory] = packed
        if packed != before:
            self._count(reason, _length(packed) - _length(before))

    def _put(self, reason: Reason, directory: str, name: str, facts: Hashable) -> None:
        files = self._looked[reason].setdefault(directory, {})
        before = len(files)
        files[name] = facts
        self._count(reason, len(files) - before)

    def _drop(self, reason: Reason, directory: str, names: Iterable[str]) -> None:
        files = self._looked[reason].get(directory)
        if files is None:
            return
        before = len(files)
        for name in names:
            files.pop(name, None)
        if len(files) != before:
            self._count(reason, len(files) - before)
        if not files:
            del self._looked[reason][directory]

    def _count(self, reason: Reason, more: int) -> None:
        self._counts[reason] += more
        self.version += 1

    def _paths(self, reason: Reason) -> Iterator[str]:
        if reason in BY_NAME:
            for directory, packed in self._named[reason].items():
                yield from (_joined(directory, name) for name in packed.split(_END))
        else:
            for directory, files in self._looked[reason].items():
                yield from (_joined(directory, name) for name in files)


def _parted(path: str) -> tuple[str, str, str]:
    """Folder and name; a folder's name keeps its slash."""
    directory, slash, name = path.removesuffix("/").rpartition("/")
    return directory, slash, f"{name}/" if path.endswith("/") else name


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _length(packed: str) -> int:
    return packed.count(_END) + 1 if packed else 0
