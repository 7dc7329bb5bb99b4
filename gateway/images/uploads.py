"""Uploads: images written into the watched folder, as if they had been copied there."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from adapters.errors import Rejected
from gateway.errors import InvalidField, NameTaken, NotAllowed, StorageFull
from gateway.images.free_names import existing_or_free, free_name
from imaging.decoders import Decoders
from imaging.media_types import MEDIA_TYPES, RAW_MEDIA_TYPE
from imaging.sources.system_names import TEMPORARY_SUFFIXES, is_system_folder

MAX_NAME_BYTES: Final = 200
"""Below the 255 that file systems allow, with room for the suffix and a temporary ending."""
SUFFIXES: Final = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/heif": ".heif",
    "image/jxl": ".jxl",
    RAW_MEDIA_TYPE: ".dng",
}
# Characters with a special meaning in some file system, shell or browser.
_UNSAFE: Final = set('/\\:*?"<>|')
# Characters at the beginning or end by which the watcher recognizes hidden or unfinished files.
_STRIPPED: Final = " .~#$"
Inspect = Callable[[Path], str]
"""Has a file decoded and returns its media type. Blocks."""
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """An image in the folder; `created` is false if the same file existed already."""

    image_id: str
    sha256: str
    size_bytes: int
    media_type: str
    created: bool


class Uploads:
    """Writes whole files into the watched folder; replaces existing ones only on request."""

    def __init__(
        self,
        root: Path,
        decoders: Decoders,
        *,
        max_bytes: int,
        workers: int,
        reserved: Collection[str] = (),
        ignore_defaults: bool = True,
    ) -> None:
        """Folders whose first part is `reserved` belong to other sources.

        With `ignore_defaults`, folders that the watcher ignores are refused.
        """
        self._ignored = is_system_folder if ignore_defaults else _never
        self._root = root
        self._reserved = frozenset(reserved)
        self._decoders = decoders
        self._max_bytes = max_bytes
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        # Each waits for a decoder. In the loop's default threads they would block everything else.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="upload")

    async def store(
        self, data: BinaryIO, *, name: str, folder: str, overwrite: bool = False
    ) -> StoredUpload:
        """Store an image in the folder; it is durable when this returns.

        Raises:
            NameTaken: there is another image of that name.
            InvalidField: `image` is not an image that can be decoded, or `folder` cannot be used.
            StorageFull: the disk is full.
            NotAllowed: the folder cannot be written to.
        """
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        storing = loop.run_in_executor(
            self._threads, self._store, data, name, folder, overwrite, self._inspector(loop)
        )
        # A thread cannot be stopped, so it holds its slot until it has finished.
        storing.add_done_callback(self._on_stored)
        try:
            return await asyncio.shield(storing)
        except InvalidField:
            raise
        except Rejected as error:
            raise InvalidField("image", str(error)) from error
        except OSError as error:
            raise _error_for(error) from error

    async def close(self) -> None:
        """Wait for uploads in flight. Close the decoders first, or this takes long."""
        for _ in range(self._workers):
            await self._slots.acquire()
        self._threads.shutdown(wait=False)

    def _on_stored(self, storing: asyncio.Future[StoredUpload]) -> None:
        self._slots.release()
        if not storing.cancelled():
            storing.exception()  # Retrieve it: perhaps no request waits for it.

    def _inspector(self, loop: asyncio.AbstractEventLoop) -> Inspect:
        def inspect(file: Path) -> str:
            inspecting = self._decoders.media_type(file, max_bytes=self._max_bytes)
            return asyncio.run_coroutine_threadsafe(inspecting, loop).result()

        return inspect

    def _store(
        self, data: BinaryIO, name: str, folder: str, overwrite: bool, inspect: Inspect
    ) -> StoredUpload:
        root = self._root.resolve(strict=True)
        parts = safe_folder(folder)
        if parts and parts[0] in self._reserved:
            raise InvalidField("folder", f"{parts[0]} is the name of another source")
        if any(map(self._ignored, parts)):
            raise InvalidField("folder", "is a folder that is never indexed")
        given = [part for part in folder.split("/") if part]
        with _folder(root, parts, given) as directory:
            return self._write(data, name, directory, root, overwrite, inspect)

    def _write(
        self,
        data: BinaryIO,
        name: str,
        directory: Path,
        root: Path,
        overwrite: bool,
        inspect: Inspect,
    ) -> StoredUpload:
        # Hidden and with `.part`: the watcher ignores it until it has its final name.
        descriptor, temporary = tempfile.mkstemp(prefix=".upload-", suffix=".part", dir=directory)
        part = Path(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            media_type = inspect(part)
            part.chmod(0o644)
            target = existing_or_free(directory, safe_name(name, media_type), name)
            with part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            created = _put(part, target, sha256, overwrite)
            size = target.stat().st_size
        finally:
            part.unlink(missing_ok=True)
        image_id = target.relative_to(root).as_posix()
        return StoredUpload(image_id, sha256, size, media_type, created)


@contextmanager
def _folder(root: Path, parts: Sequence[str], given: Sequence[str]) -> Iterator[Path]:
    """The folder below the root, created if it is missing, and removed again if the block fails.

    A link on the path may lead out of the root; nothing may be written there. So each part is
    checked before the next one is created below it. An existing part in another Unicode form is
    used, the form that was given taking precedence.
    """
    directory, made = root, list[Path]()
    try:
        for part, as_given in zip(parts, given, strict=True):
            directory = existing_or_free(directory, part, as_given)
            if directory.is_symlink() or directory.exists():
                try:
                    inside = directory.resolve(strict=True).is_relative_to(root)
                except (FileNotFoundError, RuntimeError):
                    inside = False  # A broken link, or a loop of links.
                if not inside:
                    raise InvalidField("folder", "leads out of the folder of pictures")
            else:
                directory.mkdir(exist_ok=True)
                made.append(directory)
        yield directory
    except BaseException:
        for each in reversed(made):
            with suppress(OSError):  # It is no longer empty.
                each.rmdir()
        raise


def _put(part: Path, target: Path, sha256: str, overwrite: bool) -> bool:
    """Give the finished file its name; False if the same file has it already."""
    if target.is_file() and not target.is_symlink():
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return False
    if overwrite:
        if target.is_dir():
            raise _taken(target)
        part.replace(target)
    else:
        try:
            _link(part, target)
        except FileExistsError as error:
            raise _taken(target) from error
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _link(part: Path, target: Path) -> None:
    """Give the file its name in one step, only if the name is free."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: take the name first, then fill it.
        with target.open("xb"):
            pass
        part.replace(target)


def safe_name(name: str, media_type: str) -> str:
    """A safe file name: the last part of `name`, with a suffix that fits the media type."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    kept = "".join(
        "_" if c in _UNSAFE else c
        for c in plain
        if unicodedata.category(c) not in ("Cc", "Cs", "Cf", "Cn", "Co", "Zl", "Zp")
    )
    stem, dot, suffix = kept.rpartition(".")
    wanted = SUFFIXES[media_type]
    ending = f".{suffix}"
    if not dot or MEDIA_TYPES.get(ending.lower()) != media_type:
        stem, ending = kept, wanted
    stem = stem.strip(_STRIPPED)
    while len(stem.encode()) > MAX_NAME_BYTES:
        stem = stem[:-1]
    stem = stem.rstrip(_STRIPPED) or "picture"
    return stem + ending


def safe_folder(folder: str) -> list[str]:
    """The parts of a path to a folder below the root.

    Raises:
        InvalidField: it is hidden, leads upwards or has characters that a name may not.
    """
    parts = [part for part in unicodedata.normalize("NFC", folder).split("/") if part]
    for part in parts:
        # A shell expands a leading `~` to a home folder.
        odd = part != part.strip(" .") or part.startswith("~")
        if odd or part.lower().endswith(TEMPORARY_SUFFIXES):
            raise InvalidField(
                "folder", "must not have parts that are hidden, temporary or lead upwards"
            )
        if len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES:
            raise InvalidField("folder", f"must not have parts of more than {MAX_NAME_BYTES} bytes")
        if any(c in _UNSAFE or unicodedata.category(c) in ("Cc", "Cs") for c in part):
            raise InvalidField("folder", "has characters that a folder's name may not have")
    if len(parts) > 20:
        raise InvalidField("folder", "must not be deeper than 20 folders")
    return parts


def _taken(target: Path) -> NameTaken:
    return NameTaken(target.name, free_name(target, MAX_NAME_BYTES))


def _never(_: str) -> bool:
    return False


def _error_for(error: OSError) -> Exception:
    """The gateway's error for one of the file system; raises any other error unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull()
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return NotAllowed("The gateway may not write into the folder of pictures.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return InvalidField("folder", "a part of it is a file")
    raise error
