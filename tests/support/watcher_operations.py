"""Random things that happen to a folder of pictures, as data, and what carries them out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hypothesis import strategies as st

FOLDERS = ("", "a", "a/b", "a/b/c", "d", "d d", "ü")
NAMES = (
    "1.jpg",
    "2.JPG.jpg",
    "with space.jpg",
    "it's.jpg",
    "line\nbreak.jpg",
    "日本.jpg",
    "e\u0301.jpg",
)
IGNORED = (".hidden.jpg", "note.txt", "half.jpg.part", ".dir/x.jpg", "~$lock.jpg")


@dataclass(frozen=True)
class Operation:
    """One file operation; `source` and `target` are paths below the root."""

    kind: str
    source: str
    target: str
    content: bytes


FILE_KINDS = (
    "write",
    "write",
    "append",
    "by_rename",
    "in_pieces",
    "delete",
    "move",
    "copy",
    "touch",
    "link",
)
FOLDER_KINDS = ("make", "move_folder", "remove_folder", "move_out", "move_in", "copy_folder")
BURST = 150


def burst(seed: int) -> list[Operation]:
    """A random sequence of operations, the same for the same seed."""
    random = Random(seed)

    def path() -> str:
        folder, name = random.choice(FOLDERS), random.choice(NAMES)
        return f"{folder}/{name}" if folder else name

    made = []
    for _ in range(BURST):
        content = random.randbytes(random.randrange(40))
        dice = random.random()
        if dice < 0.75:
            made.append(Operation(random.choice(FILE_KINDS), path(), path(), content))
        elif dice < 0.92:
            source, target = random.choice(FOLDERS[1:]), random.choice(FOLDERS[1:])
            made.append(Operation(random.choice(FOLDER_KINDS), source, target, content))
        else:
            made.append(Operation("write", random.choice(IGNORED), path(), content))
    return made


bursts = st.integers(min_value=0, max_value=2**32 - 1).map(burst)


def carry_out(root: Path, operation: Operation) -> None:
    """Carry it out, unless it is impossible in the present state."""
    outside = root.parent / "outside"
    source, target = root / operation.source, root / operation.target
    # What a person does by hand fails as often as this does: a missing source, a name in the way.
    with contextlib.suppress(OSError, shutil.Error):
        match operation.kind:
            case "write":
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_bytes(operation.content)
            case "append":
                with source.open("ab") as file:
                    file.write(operation.content)
            case "by_rename":
                source.parent.mkdir(parents=True, exist_ok=True)
                draft = source.with_name(source.name + ".part")
                draft.write_bytes(operation.content)
                draft.rename(source)
            case "in_pieces":
                source.parent.mkdir(parents=True, exist_ok=True)
                with source.open("wb") as file:
                    for byte in operation.content[:5]:
                        file.write(bytes([byte]))
                        file.flush()
                        time.sleep(0.002)
            case "delete":
                source.unlink()
            case "move":
                source.rename(target)
            case "copy":
                shutil.copy2(source, target)
            case "touch":
                os.utime(source)
            case "link":
                target.symlink_to(source)
            case "make":
                source.mkdir(parents=True)
            case "move_folder":
                source.rename(target)
            case "remove_folder":
                shutil.rmtree(source)
            case "move_out":
                shutil.rmtree(outside, ignore_errors=True)
                source.rename(outside)
            case "move_in":
                outside.rename(target)
            case "copy_folder" if not target.is_relative_to(source):
                shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
