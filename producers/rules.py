"""Which files are looked at: all but temporary, hidden and ignored names, and well-known others."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pathspec import GitIgnoreSpec

from adapters.media_types import MEDIA_TYPES, suffix_of
from adapters.system_names import TEMPORARY_SUFFIXES, is_system_file, is_system_folder
from producers.passed import BY_NAME, Reason
from producers.suffixes import OTHER

if TYPE_CHECKING:
    from adapters.settings import WatcherSettings

logger = logging.getLogger(__name__)

IGNORE_FILE: Final = ".imageignore"


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
        return (name[:1] == "." and not self._hidden) or name.lower().endswith(TEMPORARY_SUFFIXES)

    def skips_name(self, name: str) -> bool:
        """Whether a file of this name is hidden or temporary."""
        return self.skips_folder_name(name) or (
            (name[-1:] in ("~", "#") or name[:1] == "~") and _is_an_editors(name)
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
        by_default = self._defaults and is_system_file(name)
        if self._spec is None:
            return Reason.IGNORED if by_default else kind
        path = f"{directory}/{name}" if directory else name
        return Reason.IGNORED if self._ignores(path, by_default) else kind

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
        """Whether this folder, in one that is entered, is looked into; "" is the root, which is."""
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
        """Whether the file is to be looked at, judged by its whole path."""
        directory, _, name = image_id.rpartition("/")
        return self.judge(directory, name) in LOOKED_AT and self.reaches(directory)


def _is_an_editors(name: str) -> bool:
    """Copies, locks and unsaved states: `a.jpg~`, `~$a.jpg`, `#a.jpg#`. A `#1.jpg` is a picture."""
    return (
        name.endswith("~")
        or name.startswith("~$")
        or (name[0] == name[-1] == "#" and len(name) > 1)
    )


LOOKED_AT: Final = (None, Reason.UNSURE)
_KINDS: Final[dict[str, Reason | None]] = {
    **dict.fromkeys(OTHER, Reason.OTHER_SUFFIX),
    **dict.fromkeys(MEDIA_TYPES),
}


def media_type_by_name(name: str) -> str | None:
    """The media type that the name's suffix stands for, None for what is no picture."""
    return MEDIA_TYPES.get(suffix_of(name))


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
