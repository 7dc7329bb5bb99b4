"""`clean` deletes what a stack has created, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack import detached, launcher, state_folder, stopping
from stack.errors import StackError
from stack.settings import StackSettings
from tests.conftest import ROOT


def settings(state: Path, images: Path) -> StackSettings:
    return StackSettings(state_dir=state, images_dir=images)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    return folder


def used(state: Path) -> Path:
    """A state folder as it is after a stack ran."""
    state_folder.claim(state)
    for name in ("kafka/data", "weaviate", "triton/models", "lake", "logs", "run", "thumbnails"):
        (state / name).mkdir(parents=True)
        (state / name / "file").write_text("x")
    (state / "jwt.secret").write_text("x")
    (state / "run" / "lock").touch()
    (state / "models.json").write_text("{}")
    return state


def test_clean_deletes_what_a_stack_created(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    assert stopping.clean(settings(state, images)).left == []
    assert not state.exists()


def test_clean_counts_what_it_freed_on_the_disk(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    content = state / "lake" / "content"
    content.write_bytes(os.urandom(1_000_000))
    os.link(content, state / "weaviate" / "second-name")
    (state / "mine").write_bytes(os.urandom(1_000_000))
    cleaned = stopping.clean(settings(state, images))
    assert 1_000_000 <= cleaned.deleted < 1_500_000, "two names of one file count once"
    assert cleaned.left == [state / "mine"]


def test_clean_keeps_foreign_files(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    (state / "holiday").mkdir()
    (state / "holiday" / "beach.jpg").write_bytes(b"beach")
    (state / "notes.txt").write_text("mine")
    assert stopping.clean(settings(state, images)).left == [
        state / "holiday",
        state / "notes.txt",
    ]
    assert sorted(p.name for p in state.iterdir()) == [
        ".image-search-state",
        "holiday",
        "notes.txt",
    ]
    assert (state / "holiday" / "beach.jpg").read_bytes() == b"beach"


def test_clean_refuses_a_folder_that_no_stack_created(tmp_path: Path, images: Path) -> None:
    state = tmp_path / "home"
    (state / "logs").mkdir(parents=True)
    (state / "logs" / "mine.log").write_text("mine")
    with pytest.raises(StackError, match="not created by image-search"):
        stopping.clean(settings(state, images))
    assert (state / "logs" / "mine.log").exists()


@pytest.mark.parametrize("foreign", ["photos", "logs", "lake"])
def test_a_stack_refuses_a_folder_with_other_files(
    tmp_path: Path, images: Path, foreign: str
) -> None:
    state = tmp_path / "home"
    (state / foreign).mkdir(parents=True)
    with pytest.raises(StackError, match="STATE_DIR"):
        launcher.Launcher(settings(state, images), servers_only=True, follow=False).run()
    with pytest.raises(StackError, match="STATE_DIR"):
        detached.up_detached(settings(state, images), servers_only=True)
    assert [path.name for path in state.iterdir()] == [foreign]


def test_only_up_marks_the_folder_of_an_earlier_version(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    (state / state_folder.MARKER).unlink()
    with pytest.raises(StackError, match="`up` marks"):
        stopping.clean(settings(state, images))
    assert (state / "lake" / "file").exists()
    state_folder.claim(state)
    assert stopping.clean(settings(state, images)).left == []
    assert not state.exists()


def test_the_default_folder_may_be_claimed_after_any_program_wrote_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / ".stack"
    monkeypatch.setattr(state_folder, "DEFAULT", state)
    for name in ("thumbnails", "lake"):
        (state / name).mkdir(parents=True)
    state_folder.claim(state)
    (state / state_folder.MARKER).unlink()
    (state / "thesis.txt").touch()
    with pytest.raises(StackError, match="did not create"):
        state_folder.claim(state)


@pytest.mark.parametrize(
    "theirs", ["models.json", "jwt.secret", "run/stack.json", "run/lock", "models.json.lock"]
)
def test_foreign_files_with_a_stacks_names_are_kept(
    tmp_path: Path, images: Path, theirs: str
) -> None:
    state = tmp_path / "home"
    for name in (theirs, "logs/thesis.txt", "lake/swan.jpg", "notes.txt"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("[]")
    with pytest.raises(StackError, match="not created by image-search"):
        stopping.clean(settings(state, images))
    with pytest.raises(StackError, match="did not create"):
        state_folder.claim(state)
    assert (state / "lake/swan.jpg").exists()
    assert (state / theirs).exists()


@pytest.mark.parametrize("how", ["pictures in it", "it in pictures", "the same", "by a link"])
def test_clean_refuses_images_and_state_inside_one_another(tmp_path: Path, how: str) -> None:
    state = used(tmp_path / "state")
    images = {
        "pictures in it": state / "lake" / "pictures",
        "it in pictures": tmp_path,
        "the same": state,
        "by a link": tmp_path / "link",
    }[how]
    if how == "by a link":
        (state / "kept").mkdir()
        images.symlink_to(state / "kept")
    images.mkdir(exist_ok=True)
    with pytest.raises(StackError, match="nothing is deleted"):
        stopping.clean(settings(state, images))
    assert (state / "lake" / "file").exists()


def test_clean_refuses_a_further_source_inside_the_state(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    further = state / "thumbnails" / "nas"
    further.mkdir()
    chosen = StackSettings(
        state_dir=state, images_dir=images, images_sources=f"nas={further.as_uri()}"
    )
    with pytest.raises(StackError, match="nothing is deleted"):
        stopping.clean(chosen)
    assert further.exists()


def test_clean_deletes_a_link_and_keeps_its_target(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    elsewhere = tmp_path / "big-disk"
    elsewhere.mkdir()
    (elsewhere / "other.parquet").write_text("x")
    (state / "thumbnails" / "file").unlink()
    (state / "thumbnails").rmdir()
    (state / "thumbnails").symlink_to(elsewhere)
    assert stopping.clean(settings(state, images)).left == []
    assert (elsewhere / "other.parquet").exists()


def test_a_mounted_file_system_is_not_emptied(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = used(tmp_path / "state")
    table = tmp_path / "mountinfo"
    mount_point = os.fsencode(state / "lake").replace(b" ", b"\\040")
    table.write_bytes(b"36 35 98:0 / " + mount_point + b" rw,noatime - ext4 /dev/sdb rw\n")
    monkeypatch.setattr(state_folder, "_MOUNTS", table)
    with pytest.raises(StackError, match="is mounted"):
        stopping.clean(settings(state, images))
    assert (state / "kafka" / "data" / "file").exists()


def test_files_that_cannot_be_deleted_are_reported(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = used(tmp_path / "state")

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(StackError, match="Permission denied"):
        stopping.clean(settings(state, images))


@pytest.mark.slow
def test_the_clean_command_lists_what_it_left(tmp_path: Path, images: Path) -> None:
    state = used(tmp_path / "state")
    (state / "mine.txt").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "cli", "clean"],
        cwd=ROOT,
        env={
            **os.environ,
            "STATE_DIR": str(state),
            "IMAGES_DIR": str(images),
            "CACHE_DIR": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "mine.txt" in done.stdout
    assert (state / "mine.txt").exists()
    assert f"deleted 0.00 GB in {state}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("to delete them too: rm -rf /")
    assert str(tmp_path / "cache") not in done.stdout.splitlines()[-1], "a folder of the user"
