"""Which files are looked at: all but temporary, hidden and ignored names, and well-known others."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec

from adapters.media_types import MEDIA_TYPES, suffix_of
from producers.passed import BY_NAME, Reason
from producers.suffixes import OTHER

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

    def judge(self, directory: str, name: str) -> Reason | None:
        """Why a file of this name, in a folder that is entered, is passed over; None for a picture.

        `Reason.UNSURE`, where the name says nothing: the file's first bytes tell what it is.
        """
        kind = _KINDS.get(suffix_of(name), Reason.UNSURE)
        if kind is Reason.OTHER_SUFFIX:
            return kind
        if self.skips_name(name):
            return Reason.IGNORED
        if self._spec is not None and self._spec.match_file(
            f"{directory}/{name}" if directory else name
        ):
            return Reason.IGNORED
        return kind

    def judge_path(self, path: str) -> Reason | None:
        """`judge`, of a whole path; of a folder it ends with a slash.

        None also for what lies in a folder that is not entered, which stands for all that is in it.
        """
        directory, _, name = path.removesuffix("/").rpartition("/")
        if not self.reaches(directory):
            return None
        if path.endswith("/"):
            return None if self.enters(path[:-1]) else Reason.IGNORED
        return self.judge(directory, name)

    def passes_over(self, path: str) -> bool:
        """Whether this file or folder is one that is counted as passed over by its name."""
        return self.judge_path(path) in BY_NAME

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
        """Whether the file is to be looked at, judged by its whole path."""
        directory, _, name = image_id.rpartition("/")
        return self.judge(directory, name) in LOOKED_AT and self.reaches(directory)


LOOKED_AT: Final = (None, Reason.UNSURE)
_KINDS: Final[dict[str, Reason | None]] = {
    **dict.fromkeys(OTHER, Reason.OTHER_SUFFIX),
    **dict.fromkeys(MEDIA_TYPES),
}


def media_type_by_name(name: str) -> str | None:
    """The media type that the name's suffix stands for, None for what is no picture."""
    return MEDIA_TYPES.get(suffix_of(name))


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
