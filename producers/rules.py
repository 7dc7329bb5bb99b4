"""Which files are pictures of ours: by suffix, less temporary, hidden and ignored names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec

from adapters.media_types import MEDIA_TYPES

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
    "~",
)
"""Endings that browsers, copiers and editors give to what is not finished."""

TEMPORARY_PREFIXES: Final = ("~$", "#")


class Rules:
    """Decides by name alone; `patterns` are in the language of `.gitignore`, relative to the root.

    Names that start with a dot are hidden and ignored, unless `hidden` is set; this covers rsync's
    and most editors' temporary files.
    """

    def __init__(self, patterns: Iterable[str] = (), *, hidden: bool = False) -> None:
        self._hidden = hidden
        self.patterns = tuple(patterns)
        self._spec = GitIgnoreSpec.from_lines(self.patterns) if self.patterns else None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rules)
            and self.patterns == other.patterns
            and self._hidden == other._hidden
        )

    def __hash__(self) -> int:
        return hash((self.patterns, self._hidden))

    def skips_name(self, name: str) -> bool:
        """Whether a file or folder of this name is hidden or temporary."""
        return (
            name.startswith(TEMPORARY_PREFIXES)
            or (name[0] == "." and not self._hidden)
            or name.lower().endswith(TEMPORARY_SUFFIXES)
        )

    def takes_file(self, image_id: str) -> bool:
        """Whether this file, in a folder that is taken, is a picture to publish."""
        directory, _, name = image_id.rpartition("/")
        return self.takes_name(directory, name)

    def takes_name(self, directory: str, name: str) -> bool:
        """`takes_file`, of a path in two parts."""
        if media_type(name) is None or self.skips_name(name):
            return False
        if self._spec is None:
            return True
        return not self._spec.match_file(f"{directory}/{name}" if directory else name)

    def enters(self, directory: str) -> bool:
        """Whether this folder, in one that is entered, is looked into."""
        return not self.skips_name(directory.rpartition("/")[2]) and not (
            self._spec is not None and self._spec.match_file(directory + "/")
        )

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


def media_type(name: str) -> str | None:
    """The media type that the name's suffix stands for, None for what is no picture."""
    _, dot, suffix = name.rpartition(".")
    return MEDIA_TYPES.get("." + suffix.lower()) if dot else None


def load_rules(root: Path, patterns: Iterable[str], *, hidden: bool) -> Rules:
    """Rules of the settings and of the root's ignore file, where there is one.

    An ignore file that cannot be read is logged and leaves the settings' patterns alone.
    """
    lines = list(patterns)
    try:
        lines += (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("cannot read %s, going on without it: %s", root / IGNORE_FILE, error)
    try:
        return Rules(lines, hidden=hidden)
    except ValueError as error:
        logger.warning("the ignore patterns are not valid, going on without them: %s", error)
        return Rules(hidden=hidden)
