"""The images that the `images` topic lists: the watcher's only state, read at every start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from producers.known_image import KnownImage
from producers.paths import join


class KnownImages:
    """Path -> `KnownImage`, grouped by directory, so that whole folders compare quickly."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, KnownImage]] = {}
        self._folders: dict[str, set[str]] = {}
        self._count = 0
        self._below: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return self.below("")

    def count(self, mount: str | None) -> int:
        """Number of images below this mount point; None counts the root's own file system."""
        return self._count - self._below.total() if mount is None else self._below[mount]

    def get(self, path: str) -> KnownImage | None:
        """The image as last published for the path; None if there is none, or it was removed."""
        directory, _, name = path.rpartition("/")
        return self._files.get(directory, {}).get(name)

    def put(self, path: str, known: KnownImage) -> None:
        """Record an addition."""
        directory, _, name = path.rpartition("/")
        files = self._files.get(directory)
        if files is None:
            files = self._files[directory] = {}
            self._link(directory)
        before = files.get(name)
        self._count += before is None
        files[name] = known
        if before is not None and before.mount is not None:
            self._below[before.mount] -= 1
        if known.mount is not None:
            self._below[known.mount] += 1

    def remove(self, path: str) -> None:
        """Record a removal; an unknown path is no error."""
        directory, _, name = path.rpartition("/")
        files = self._files.get(directory, {})
        before = files.pop(name, None)
        if before is None:
            return
        self._count -= 1
        if before.mount is not None:
            self._below[before.mount] -= 1
        if not files:
            del self._files[directory]
            self._unlink(directory)

    def files(self, directory: str) -> dict[str, KnownImage]:
        """The known images directly in a directory, by name. Not to be modified."""
        return self._files.get(directory, {})

    def folders(self, directory: str) -> set[str]:
        """Names of the subfolders of a directory that hold known images, at any depth."""
        return set(self._folders.get(directory, ()))

    def below(self, directory: str) -> Iterator[str]:
        """Paths of all known images in a directory and below it."""
        pending = [directory]
        while pending:
            here = pending.pop()
            yield from (join(here, name) for name in tuple(self._files.get(here, ())))
            pending.extend(join(here, name) for name in tuple(self._folders.get(here, ())))

    def _link(self, directory: str) -> None:
        while directory:
            parent, _, name = directory.rpartition("/")
            siblings = self._folders.setdefault(parent, set())
            if name in siblings:
                return
            siblings.add(name)
            directory = parent

    def _unlink(self, directory: str) -> None:
        while directory and directory not in self._files and not self._folders.get(directory):
            parent, _, name = directory.rpartition("/")
            siblings = self._folders[parent]
            siblings.discard(name)
            if not siblings:
                del self._folders[parent]
            directory = parent
