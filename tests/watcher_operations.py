"""Random things that happen to a folder of pictures, as data, and what carries them out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

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
    """One thing that happens; `source` and `target` are paths below the root."""

    kind: str
    source: str
    target: str
    content: bytes


paths = st.builds(
    lambda folder, name: f"{folder}/{name}" if folder else name,
    st.sampled_from(FOLDERS),
    st.sampled_from(NAMES),
)
folders = st.sampled_from([folder for folder in FOLDERS if folder])
contents = st.binary(min_size=0, max_size=40)

operations = st.one_of(
    st.builds(
        Operation,
        st.sampled_from(
            [
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
            ]
        ),
        paths,
        paths,
        contents,
    ),
    st.builds(
        Operation,
        st.sampled_from(
            ["make", "move_folder", "remove_folder", "move_out", "move_in", "copy_folder"]
        ),
        folders,
        folders,
        contents,
    ),
    st.builds(Operation, st.just("write"), st.sampled_from(IGNORED), paths, contents),
)
bursts = st.lists(operations, min_size=10, max_size=60)


def carry_out(root: Path, operation: Operation) -> None:
    """Do it; what cannot be done as things stand is left undone."""
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
