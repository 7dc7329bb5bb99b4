"""Decides by name which files are examined: all except hidden, temporary and ignored ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pathspec import GitIgnoreSpec

from imaging.media_types import MEDIA_TYPES, suffix_of
from imaging.sources.system_names import TEMPORARY_SUFFIXES, is_system_file, is_system_folder
from producers.skipped import BY_NAME, SkipReason
from producers.suffixes import OTHER

if TYPE_CHECKING:
    from producers.settings import WatcherSettings

logger = logging.getLogger(__name__)

IGNORE_FILE: Final = ".imageignore"


class Rules:
    """Decides by name alone. `patterns` use the syntax of `.gitignore`, relative to the root.

    Names that start with a dot are hidden and ignored unless `hidden` is set; this covers the
    temporary files of rsync and most editors. With `defaults`, the names in
    `imaging.sources.system_names` are ignored as well. They come before the patterns, so the
    pattern `!@eaDir/` includes such a folder again.
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
        return (name[:1] == "." and not self._hidden) or name.lower().endswith(TEMPORARY_SUFFIXES)

    def skips_name(self, name: str) -> bool:
        """Whether a file of this name is hidden or temporary."""
        return self.skips_folder_name(name) or (
            (name[-1:] in ("~", "#") or name[:1] == "~") and _is_editor_file(name)
        )

    def judge(self, directory: str, name: str) -> SkipReason | None:
        """Why a file of this name, in a folder that is entered, is skipped; None for an image.

        `SkipReason.UNSURE` if the name does not decide, so that the file's first bytes must.
        """
        kind = _KINDS.get(suffix_of(name), SkipReason.UNSURE)
        if kind is SkipReason.OTHER_SUFFIX:
            return kind
        if self.skips_name(name):
            return SkipReason.IGNORED
        by_default = self._defaults and is_system_file(name)
        if self._spec is None:
            return SkipReason.IGNORED if by_default else kind
        path = f"{directory}/{name}" if directory else name
        return SkipReason.IGNORED if self._ignores(path, by_default) else kind

    def judge_path(self, path: str) -> SkipReason | None:
        """As `judge`, for a whole path. The path of a folder ends with a slash.

        None also for a path in a folder that is not entered: that folder counts for its content.
        """
        directory, _, name = path.removesuffix("/").rpartition("/")
        if not self.reaches(directory):
            return None
        if path.endswith("/"):
            return None if self.enters(path[:-1]) else SkipReason.IGNORED
        return self.judge(directory, name)

    def skips(self, path: str) -> bool:
        """Whether this file or folder is counted as skipped because of its name."""
        return self.judge_path(path) in BY_NAME

    def enters(self, directory: str) -> bool:
        """Whether this folder, in one that is entered, is scanned; the root ("") always is."""
        if not directory:
            return True
        name = directory.rpartition("/")[2]
        if self.skips_folder_name(name):
            return False
        by_default = self._defaults and is_system_folder(name)
        if self._spec is None:
            return not by_default
        return not self._ignores(directory + "/", by_default)

    def _ignores(self, path: str, by_default: bool) -> bool:
        included = self._spec.check_file(path).include if self._spec is not None else None
        return by_default if included is None else included

    def is_system_path(self, path: str) -> bool:
        """Whether the path alone shows that it belongs to a file system, NAS or desktop."""
        directory, _, name = path.rpartition("/")
        if self._defaults and is_system_file(name) and self._ignores(path, True):
            return True
        while self._defaults and directory:
            name = directory.rpartition("/")[2]
            if is_system_folder(name) and self._ignores(directory + "/", True):
                return True
            directory = directory.rpartition("/")[0]
        return False

    def split_system_paths(self, paths: Iterable[str]) -> tuple[list[str], list[str]]:
        """The paths for which `is_system_path` is true, and the others."""
        left_out, others = list[str](), list[str]()
        for path in paths:
            (left_out if self.is_system_path(path) else others).append(path)
        return left_out, others

    def reaches(self, directory: str) -> bool:
        """Whether this folder and each one above it is entered; "" is the root."""
        while directory:
            if not self.enters(directory):
                return False
            directory = directory.rpartition("/")[0]
        return True

    def includes(self, path: str) -> bool:
        """Whether the file is to be examined, judged by its whole path."""
        directory, _, name = path.rpartition("/")
        return self.judge(directory, name) in TO_EXAMINE and self.reaches(directory)


def _is_editor_file(name: str) -> bool:
    """Backups, locks and autosaves: `a.jpg~`, `~$a.jpg`, `#a.jpg#`. But `#1.jpg` is an image."""
    return (
        name.endswith("~")
        or name.startswith("~$")
        or (name[0] == name[-1] == "#" and len(name) > 1)
    )


TO_EXAMINE: Final = (None, SkipReason.UNSURE)
"""Results of `Rules.judge` with which a file is examined."""
_KINDS: Final[dict[str, SkipReason | None]] = {
    **dict.fromkeys(OTHER, SkipReason.OTHER_SUFFIX),
    **dict.fromkeys(MEDIA_TYPES),
}


def media_type_by_name(name: str) -> str | None:
    """The media type of the name's suffix; None if it is not a suffix of images."""
    return MEDIA_TYPES.get(suffix_of(name))


def load_rules(root: Path, patterns: Iterable[str], settings: WatcherSettings) -> Rules:
    """The rules of the settings, these patterns and the root's ignore file, if there is one.

    If the ignore file cannot be read, that is logged and the other patterns apply.
    """
    lines = list(patterns)
    hidden, defaults = settings.include_hidden, settings.ignore_defaults
    try:
        lines += (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("cannot read %s, continuing without it: %s", root / IGNORE_FILE, error)
    try:
        return Rules(lines, hidden=hidden, defaults=defaults)
    except ValueError as error:
        logger.warning("the ignore patterns are not valid, continuing without them: %s", error)
        return Rules(hidden=hidden, defaults=defaults)
