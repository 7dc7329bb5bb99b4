"""The sample pictures: readable, enough of them, small, each with its source and licence."""

import re
from pathlib import Path

import pytest
from PIL import Image

IMAGES = Path(__file__).resolve().parents[2] / "images"
SUFFIXES = {".jpg", ".jpeg", ".png"}
IMAGE_FILES = sorted(path for path in IMAGES.rglob("*") if path.suffix.lower() in SUFFIXES)
# One table row: | `folder/name.jpg` | source file | author | licence |
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
LICENCE_FILES = {
    "CC0-1.0": "LICENSES/CC0-1.0.txt",
    "GPL-2.0-or-later": "LICENSES/GPL-2.0.txt",
    "Public domain": "LICENSES/PUBLIC-DOMAIN.md",
}


def name_of(path: Path) -> str:
    return path.relative_to(IMAGES).as_posix()


def attribution() -> list[tuple[str, str, str, str]]:
    return ROW.findall((IMAGES / "ATTRIBUTION.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", IMAGE_FILES, ids=name_of)
def test_each_sample_image_opens(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert image.format == ("PNG" if path.suffix.lower() == ".png" else "JPEG")
        assert 180 <= max(image.size) <= 800


def test_there_are_enough_sample_images_and_they_are_small() -> None:
    assert len(IMAGE_FILES) >= 40
    assert sum(path.stat().st_size for path in IMAGE_FILES) <= 10 * 1024 * 1024


def test_the_attribution_lists_exactly_the_sample_images() -> None:
    assert sorted(row[0] for row in attribution()) == sorted(map(name_of, IMAGE_FILES))


def test_every_licence_has_its_text() -> None:
    used = {licence for *_, licence in attribution()}
    assert used <= LICENCE_FILES.keys()
    assert all((IMAGES / LICENCE_FILES[licence]).stat().st_size > 0 for licence in used)


@pytest.mark.slow
def test_gpl_images_stay_in_their_own_folder() -> None:
    folders = {(licence, name.split("/")[0]) for name, _, _, licence in attribution()}
    assert {folder for licence, folder in folders if licence.startswith("GPL")} == {"tuxpaint-gpl2"}
    assert {licence for licence, folder in folders if folder == "tuxpaint-gpl2"} == {
        "GPL-2.0-or-later"
    }
    gpl = (IMAGES / "LICENSES/GPL-2.0.txt").read_text(encoding="utf-8")
    assert (IMAGES / "tuxpaint-gpl2/LICENSE").read_text(encoding="utf-8") == gpl
