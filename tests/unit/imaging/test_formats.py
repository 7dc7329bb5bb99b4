"""Every odd and hostile file is indexed or refused, exactly as `docs/formats.md` says."""

import io

import numpy as np
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from imaging.decode import decode
from imaging.media_types import MEDIA_TYPES, RAW_MEDIA_TYPE
from imaging.thumbnail import check, thumbnail
from tests.corpus.builders import CORNERS, Facts, card
from tests.corpus.formats_table import FILE as TABLE
from tests.corpus.formats_table import rows as table_of
from tests.support.corpus_cases import INDEXED, Case, cases, saved

CASES = list(cases())
INDEXED_CASES = [case for case in CASES if case.outcome == INDEXED]
REFUSED_CASES = [case for case in CASES if case.outcome != INDEXED]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", INDEXED_CASES, ids=lambda case: case.name)
def test_each_file_looks_like_the_same_pixels_in_a_plain_png(
    case: Case, small_spec: ModelSpec
) -> None:
    assert case.upright is not None
    plain = decode(saved(case.upright, "PNG"), small_spec)
    found = decode(case.data, small_spec)
    assert found.pixels.shape == (16, 16, 3)
    assert (found.width, found.height) == case.size == case.upright.size
    assert found.media_type == case.media_type
    assert case.media_type in MEDIA_TYPES.values()
    assert Facts.of(found) == case.facts
    assert np.abs(found.pixels.astype(int) - plain.pixels).mean() <= case.distance


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", INDEXED_CASES, ids=lambda case: case.name)
def test_each_thumbnail_is_a_small_upright_jpeg_without_a_profile(case: Case) -> None:
    assert check(case.data) == case.media_type
    data = thumbnail(case.data, edge=256)
    assert len(data) < 100_000
    small = Image.open(io.BytesIO(data))
    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert not {"icc_profile", "exif"} & set(small.info)
    assert case.upright is not None
    upright = case.upright.copy()
    if case.media_type == RAW_MEDIA_TYPE:  # developed in half its size
        upright = upright.reduce(2)
    upright.thumbnail((256, 256))
    assert small.size == upright.size
    difference = np.abs(np.asarray(small, int) - np.asarray(upright))
    assert difference.mean() <= case.distance
    if case.upright.tobytes() == card().tobytes():
        assert_corners(small, case)


def assert_corners(small: Image.Image, case: Case) -> None:
    right, bottom = small.width - 4, small.height - 4
    places = ((3, 3), (right, 3), (3, bottom), (right, bottom))
    for place, colour in zip(places, CORNERS, strict=True):
        found = np.asarray(small.getpixel(place))
        nearest = min(CORNERS, key=lambda each: float(np.abs(found - each).sum()))
        assert nearest == colour, (case.name, place)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED_CASES, ids=lambda case: case.name)
def test_files_that_cannot_be_shown_are_refused_with_the_reason(
    case: Case, small_spec: ModelSpec
) -> None:
    with pytest.raises(Rejected, match=case.outcome):
        decode(case.data, small_spec)
    with pytest.raises(Rejected, match=case.outcome):
        thumbnail(case.data, edge=256)
    with pytest.raises(Rejected, match=case.outcome):
        check(case.data)


def test_the_table_of_formats_lists_exactly_these_files() -> None:
    head, mark, table = TABLE.read_text(encoding="utf-8").partition("| file |")
    assert head
    assert mark + table == table_of(CASES)
    assert len({case.name for case in CASES}) == len(CASES) >= 250
