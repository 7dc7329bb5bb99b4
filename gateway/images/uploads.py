"""Pictures sent over HTTP, put into the watched folder as if somebody had copied them there."""

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
from gateway.images.free_names import free_name, there_or_free
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
# Characters that some file system, shell or browser gives a meaning of its own.
_UNSAFE: Final = set('/\\:*?"<>|')
# Beginnings and endings that the watcher takes for hidden or unfinished files.
_STRIPPED: Final = " .~#$"
Look = Callable[[Path], str]
"""Has a file decoded and returns its media type. Blocks."""
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture in the folder; `created` is false where exactly it was there before."""

    image_id: str
    sha256: str
    size_bytes: int
    media_type: str
    created: bool


class Uploads:
    """Writes into the watched folder: whole files only, and over nothing unless asked."""

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
        """Folders whose first part is `reserved` are those of other sources.

        With `ignore_defaults`, nothing is put where the watcher would not look for it.
        """
        self._ignored = is_system_folder if ignore_defaults else _nothing
        self._root = root
        self._reserved = frozenset(reserved)
        self._decoders = decoders
        self._max_bytes = max_bytes
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        # Each waits for a decoder. Were they the loop's own, nothing else would have one meanwhile.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="upload")

    async def store(
        self, data: BinaryIO, *, name: str, folder: str, overwrite: bool = False
    ) -> Stored:
        """Put a picture into the folder; it is durable when this returns.

        Raises:
            NameTaken: there is another image of that name.
            InvalidField: `image` is not an image that can be decoded, or `folder` cannot be used.
            StorageFull: the disk is full.
            NotAllowed: the folder cannot be written to.
        """
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        storing = loop.run_in_executor(
            self._threads, self._store, data, name, folder, overwrite, self._look(loop)
        )
        # A thread cannot be stopped, so its slot is taken for as long as it works.
        storing.add_done_callback(self._stored)
        try:
            return await asyncio.shield(storing)
        except InvalidField:
            raise
        except Rejected as error:
            raise InvalidField("image", str(error)) from error
        except OSError as error:
            raise _refused(error) from error

    async def close(self) -> None:
        """Wait for what is being stored; end the decoders before, so that it does not take long."""
        for _ in range(self._workers):
            await self._slots.acquire()
        self._threads.shutdown(wait=False)

    def _stored(self, storing: asyncio.Future[Stored]) -> None:
        self._slots.release()
        if not storing.cancelled():
            storing.exception()  # Perhaps nobody waits for it any more.

    def _look(self, loop: asyncio.AbstractEventLoop) -> Look:
        def look(file: Path) -> str:
            looking = self._decoders.media_type(file, max_bytes=self._max_bytes)
            return asyncio.run_coroutine_threadsafe(looking, loop).result()

        return look

    def _store(self, data: BinaryIO, name: str, folder: str, overwrite: bool, look: Look) -> Stored:
        root = self._root.resolve(strict=True)
        parts = safe_folder(folder)
        if parts and parts[0] in self._reserved:
            raise InvalidField("folder", f"{parts[0]} is the name of another source")
        if any(map(self._ignored, parts)):
            raise InvalidField("folder", "is one of those that are never indexed")
        given = [part for part in folder.split("/") if part]
        with _folder(root, parts, given) as directory:
            return self._write(data, name, directory, root, overwrite, look)

    def _write(
        self,
        data: BinaryIO,
        name: str,
        directory: Path,
        root: Path,
        overwrite: bool,
        look: Look,
    ) -> Stored:
        # `.part` and hidden: the watcher does not look at it before it has its name.
        descriptor, temporary = tempfile.mkstemp(prefix=".upload-", suffix=".part", dir=directory)
        part = Path(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            media_type = look(part)
            part.chmod(0o644)
            target = there_or_free(directory, safe_name(name, media_type), name)
            with part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            created = _put(part, target, sha256, overwrite)
            size = target.stat().st_size
        finally:
            part.unlink(missing_ok=True)
        image_id = target.relative_to(root).as_posix()
        return Stored(image_id, sha256, size, media_type, created)


@contextmanager
def _folder(root: Path, parts: Sequence[str], given: Sequence[str]) -> Iterator[Path]:
    """The folder below the root, made where it is missing; what was made goes if the block fails.

    A link on the way may lead out of the root; what is written or made must not. Each part is
    looked at before the next one is made below it. One that is there in another Unicode form, first
    of all in the one given, is the one that is meant.
    """
    directory, made = root, list[Path]()
    try:
        for part, as_given in zip(parts, given, strict=True):
            directory = there_or_free(directory, part, as_given)
            if directory.is_symlink() or directory.exists():
                try:
                    inside = directory.resolve(strict=True).is_relative_to(root)
                except (FileNotFoundError, RuntimeError):
                    inside = False  # A link to nowhere, or in a circle.
                if not inside:
                    raise InvalidField("folder", "leads out of the folder of pictures")
            else:
                directory.mkdir(exist_ok=True)
                made.append(directory)
        yield directory
    except BaseException:
        for each in reversed(made):
            with suppress(OSError):  # Somebody else put something there meanwhile.
                each.rmdir()
        raise


def _put(part: Path, target: Path, sha256: str, overwrite: bool) -> bool:
    """Give the finished file its name; False if exactly this picture has it already."""
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
    """Name it, in one step, only if the name is free."""
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
    """A file name for this picture: the last part of `name`, harmless, with a fitting suffix."""
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
    """The parts of a folder below the root.

    Raises:
        InvalidField: it is hidden, leads upwards or has characters that a name may not.
    """
    parts = [part for part in unicodedata.normalize("NFC", folder).split("/") if part]
    for part in parts:
        # A shell takes a `~` in front for somebody's home.
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


def _nothing(_: str) -> bool:
    return False


def _refused(error: OSError) -> Exception:
    """The error of ours for an error of the file system; raises what has none."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull()
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return NotAllowed("The gateway may not write into the folder of pictures.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return InvalidField("folder", "a part of it is a file")
    raise error
