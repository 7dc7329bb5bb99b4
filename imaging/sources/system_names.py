"""Names of files and folders that file systems, NAS systems and desktops create for themselves.

Thumbnails, bins, snapshots and indexes are stored beside users' images but are not to be searched.
Only complete names that a system creates are listed, in any case; a merely unusual name (`@home`,
`#1`, `lost`) may be a user's own.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from typing import Final

FOLDERS: Final = {
    "file systems": ("lost+found", "LOST.DIR", "FOUND.[0-9][0-9][0-9]", ".zfs"),
    "Windows": (
        "$RECYCLE.BIN",
        "RECYCLER",
        "System Volume Information",
        "$WinREAgent",
        "$SysReset",
        "$Windows.~BT",
        "$Windows.~WS",
    ),
    "macOS": (
        ".Trashes",
        ".Trash",
        ".Spotlight-V100",
        ".fseventsd",
        ".TemporaryItems",
        ".DocumentRevisions-V100",
        ".AppleDouble",
        ".AppleDB",
        ".AppleDesktop",
        ".MobileBackups",
        "Network Trash Folder",
        "Temporary Items",
    ),
    "Linux desktops": (".thumbnails", ".sh_thumbnails", ".Trash-*", ".dtrash"),
    "Android": (".globalTrash", ".trashBin"),
    "Synology": (
        "@eaDir",
        "#recycle",
        "#snapshot",
        "@tmp",
        "@sharebin",
        "@appstore",
        "@appconf",
        "@appdata",
        "@apphome",
        "@apptemp",
        "@database",
        "@docker",
    ),
    "QNAP and Asustor": ("@Recycle", "@Recently-Snapshot", "@Transcode", ".@*"),
    "other NAS systems": (
        ".recycle",
        ".Recycle.Bin",
        ".snapshot",
        ".snapshots",
        "~snapshot",
        ".wdmc",
        ".wdcache",
    ),
    "Nextcloud": ("appdata_oc*", "files_trashbin", "files_versions"),
    "synchronizers": (
        ".stversions",
        ".stfolder",
        ".dropbox.cache",
        ".tmp.drivedownload",
        ".tmp.driveupload",
    ),
}
"""System -> names of its folders; `*` matches any characters."""

FILES: Final = (
    "Thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "Icon\r",
    ".DS_Store",
    ".apdisk",
    ".directory",
)
FILE_BEGINNINGS: Final = ("._", ".trashed-", ".pending-")
"""All hidden: macOS's companion files, and Android's images in the bin or not yet complete."""
FILE_ENDINGS: Final = ("@SynoEAStream", "@SynoResource")

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
"""Suffixes with which browsers and copying programs mark unfinished files and folders."""

_FOLDER: Final = re.compile(
    "|".join(translate(name.lower()) for names in FOLDERS.values() for name in names)
)
_FILES: Final = frozenset(name.lower() for name in FILES)
_LAST_LETTERS: Final = frozenset(
    letter for name in (*FILES, *FILE_ENDINGS) for letter in (name[-1].lower(), name[-1].upper())
)


@lru_cache(maxsize=4096)
def is_system_folder(name: str) -> bool:
    """Whether a system creates folders of this name for itself."""
    return _FOLDER.match(name.lower()) is not None


def is_system_file(name: str) -> bool:
    """Whether a system creates files of this name for itself."""
    # Called for every file of a tree; nearly all names are decided here.
    if name[-1:] not in _LAST_LETTERS and name[:1] != ".":
        return False
    return name.startswith(FILE_BEGINNINGS) or name.endswith(FILE_ENDINGS) or name.lower() in _FILES
