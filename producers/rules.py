"""Which files are pictures of ours: by suffix, less temporary, hidden and ignored names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pathspec import GitIgnoreSpec

from adapters.media_types import MEDIA_TYPES
from adapters.system_names import is_system_file, is_system_folder

if TYPE_CHECKING:
    from adapters.settings import WatcherSettings

logger = logging.getLogger(__name__)

IGNORE_FILE: Final = ".imageignore"

TEMPORARY_SUFFIXES: Final = (
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".tmp",
    ".temp",
    ".swp",
    ".swx",
    ".filepart",
)
"""Endings that browsers and copiers give to what is not finished, be it a file or a folder."""


class Rules:
    """Decides by name alone; `patterns` are in the language of `.gitignore`, relative to the root.

    Names that start with a dot are hidden and ignored, unless `hidden` is set; this covers rsync's
    and most editors' temporary files. With `defaults`, so is what `adapters.system_names` lists, as
    if it stood before the patterns: `!@eaDir/` takes it back.
    """

    def __init__(
        self, patterns: Iterable[str] = (), *, hidden: bool = False, defaults: bool = True
    ) -> None:
        self._hidden = hidden
        self._defaults = defaults
        self.patterns = tuple(patterns)
        self._spec = GitIgnoreSpec.from_lines(self.patterns) if self.patterns else None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rules)
            and self.patterns == other.patterns
            and (self._hidden, self._defaults) == (other._hidden, other._defaults)
        )

    def __hash__(self) -> int:
        return hash((self.patterns, self._hidden, self._defaults))

    def skips_folder_name(self, name: str) -> bool:
        """Whether a folder of this name is hidden or temporary."""
        return (name[0] == "." and not self._hidden) or name.lower().endswith(TEMPORARY_SUFFIXES)

    def skips_name(self, name: str) -> bool:
        """Whether a file of this name is hidden or temporary."""
        return self.skips_folder_name(name) or (
            (name[-1] in "~#" or name[0] == "~") and _is_an_editors(name)
        )

    def takes_file(self, image_id: str) -> bool:
        """Whether this file, in a folder that is taken, is a picture to publish."""
        directory, _, name = image_id.rpartition("/")
        return self.takes_name(directory, name)

    def takes_name(self, directory: str, name: str) -> bool:
        """`takes_file`, of a path in two parts."""
        if media_type(name) is None or self.skips_name(name):
            return False
        by_default = self._defaults and is_system_file(name)
        if self._spec is None:
            return not by_default
        return not self._ignores(f"{directory}/{name}" if directory else name, by_default)

    def enters(self, directory: str) -> bool:
        """Whether this folder, in one that is entered, is looked into."""
        name = directory.rpartition("/")[2]
        if self.skips_folder_name(name):
            return False
        by_default = self._defaults and is_system_folder(name)
        if self._spec is None:
            return not by_default
        return not self._ignores(directory + "/", by_default)

    def _ignores(self, path: str, by_default: bool) -> bool:
        told = self._spec.check_file(path).include if self._spec is not None else None
        return by_default if told is None else told

    def leaves_out(self, image_id: str) -> bool:
        """Whether its name alone says that it is some system's own, whatever is on disk."""
        directory, _, name = image_id.rpartition("/")
        if self._defaults and is_system_file(name) and self._ignores(image_id, True):
            return True
        while self._defaults and directory:
            name = directory.rpartition("/")[2]
            if is_system_folder(name) and self._ignores(directory + "/", True):
                return True
            directory = directory.rpartition("/")[0]
        return False

    def parted(self, image_ids: Iterable[str]) -> tuple[list[str], list[str]]:
        """Those that `leaves_out` names, and the others."""
        left_out, others = list[str](), list[str]()
        for image_id in image_ids:
            (left_out if self.leaves_out(image_id) else others).append(image_id)
        return left_out, others

    def reaches(self, directory: str) -> bool:
        """Whether this folder and each one above it is entered; "" is the root."""
        while directory:
            if not self.enters(directory):
                return False
            directory = directory.rpartition("/")[0]
        return True

    def takes(self, image_id: str) -> bool:
        """Whether the file is a picture to publish, judged by its whole path."""
        return self.takes_file(image_id) and self.reaches(image_id.rpartition("/")[0])


def _is_an_editors(name: str) -> bool:
    """Copies, locks and unsaved states: `a.jpg~`, `~$a.jpg`, `#a.jpg#`. A `#1.jpg` is a picture."""
    return (
        name.endswith("~")
        or name.startswith("~$")
        or (name[0] == name[-1] == "#" and len(name) > 1)
    )


def media_type(name: str) -> str | None:
    """The media type that the name's suffix stands for, None for what is no picture."""
    _, dot, suffix = name.rpartition(".")
    return MEDIA_TYPES.get("." + suffix.lower()) if dot else None


def load_rules(root: Path, patterns: Iterable[str], settings: WatcherSettings) -> Rules:
    """Rules of the settings, with these patterns, and of the root's ignore file if there is one.

    An ignore file that cannot be read is logged and leaves the settings' patterns alone.
    """
    lines = list(patterns)
    hidden, defaults = settings.include_hidden, settings.ignore_defaults
    try:
        lines += (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("cannot read %s, going on without it: %s", root / IGNORE_FILE, error)
    try:
        return Rules(lines, hidden=hidden, defaults=defaults)
    except ValueError as error:
        logger.warning("the ignore patterns are not valid, going on without them: %s", error)
        return Rules(hidden=hidden, defaults=defaults)
