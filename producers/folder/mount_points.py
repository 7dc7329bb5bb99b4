"""Finds the mount point of an image, also through followed links."""

from __future__ import annotations

from collections.abc import Callable

from imaging.sources.mounts import Mounts


class MountPoints:
    """The mount points of one watched folder.

    Args:
        current: returns what is mounted now.
    """

    def __init__(self, current: Callable[[], Mounts]) -> None:
        self._current = current
        self._linked: dict[str, str] = {}

    def record(self, directory: str, real: str | None) -> None:
        """Record a scanned directory; `real` is its absolute path if a link leads there."""
        if real is not None:
            self._linked[directory] = real
        elif self._linked:
            self._linked.pop(directory, None)

    def of(self, path: str) -> str | None:
        """The mount point of this image; None for the folder's own file system."""
        directory, _, name = path.rpartition("/")
        real = self._linked.get(directory)
        mounts = self._current()
        return mounts.of(path) if real is None else mounts.of_real(f"{real}/{name}")

    def of_all(self, directory: str) -> Callable[[str], str | None]:
        """As `of`, for all names in one directory, most of which share a mount point."""
        mounts, real = self._current(), self._linked.get(directory)
        if real is not None:
            here = mounts.of_real(real)
            return lambda name: here
        here = mounts.of(directory)
        files = {point for point in mounts.points if point.rpartition("/")[0] == directory}
        if not files:
            return lambda name: here
        prefix = f"{directory}/" if directory else ""
        return lambda name: prefix + name if prefix + name in files else here
