"""The index returns the facts that were stored, and its filters find them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from weaviate.collections.classes.filters import _FilterValue

from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.filters import conditions
from adapters.index.port import Between, ImageFilter, ImageRecord
from adapters.index.schema import stored_properties
from adapters.index.storable import EARLIEST, LATEST, storable

WHEN = datetime(2026, 1, 5, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(timezones=st.timezones() | st.just(UTC))
UNKEPT = [
    datetime.min.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime(1677, 9, 21, tzinfo=UTC),
    datetime(2262, 4, 12, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
]


def record(**facts: Any) -> ImageRecord:
    plain = ImageRecord(
        image_id="a.jpg",
        uri="file:///a.jpg",
        sha256="a" * 64,
        media_type="image/jpeg",
        size_bytes=9,
        width=3,
        height=3,
        modified_at=WHEN,
        added_at=WHEN,
        vector=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    )
    return replace(plain, **facts)


@pytest.mark.parametrize("name", ["taken_at", "added_at", "modified_at"])
@pytest.mark.parametrize("moment", UNKEPT)
def test_a_date_that_weaviate_would_wrap_is_absent(name: str, moment: datetime) -> None:
    stored = stored_properties(record(**{name: moment}))
    assert name not in stored
    assert stored["sha256"] == "a" * 64


@pytest.mark.parametrize("moment", [datetime(1700, 1, 1, tzinfo=UTC), WHEN])
def test_a_date_that_weaviate_can_hold_is_kept(moment: datetime) -> None:
    assert stored_properties(record(taken_at=moment))["taken_at"] == moment


@pytest.mark.slow
@given(MOMENTS)
def test_stored_dates_fit_into_64_bits_of_nanoseconds(moment: datetime) -> None:
    if storable(record(taken_at=moment)).taken_at is not None:
        assert abs((moment - EPOCH) / timedelta(microseconds=1)) * 1000 < 2**63


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(91.0, 0.0), (0.0, 181.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, None), (None, 1.0)],
)
def test_a_position_with_one_coordinate_is_absent(
    latitude: float | None, longitude: float | None
) -> None:
    stored = stored_properties(record(latitude=latitude, longitude=longitude))
    assert "latitude" not in stored
    assert "longitude" not in stored


@pytest.mark.parametrize("camera", ["\ud800", "a\0b", "", "  "])
def test_a_text_that_no_filter_can_match_is_absent(camera: str) -> None:
    assert "camera" not in stored_properties(record(camera=camera))


def _bounds(where: ImageFilter) -> list[tuple[str, datetime]]:
    found = conditions(where)
    parts: list[Any] = [found] if isinstance(found, _FilterValue) else getattr(found, "filters", [])
    return [(part.operator.value, part.value) for part in parts]


def _finds(where: ImageFilter, moment: datetime) -> bool:
    """What Weaviate does with bounds, which it keeps as it keeps dates."""
    comparisons = {
        "GreaterThanEqual": lambda bound: moment >= bound,
        "LessThanEqual": lambda bound: moment <= bound,
    }
    bounds = _bounds(where)
    assert all(
        abs((bound - EPOCH) / timedelta(microseconds=1)) * 1000 < 2**63 for _, bound in bounds
    )
    return all(comparisons[operator](bound) for operator, bound in bounds)


@pytest.mark.slow
@given(MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS)
def test_filters_match_stored_values(
    moment: datetime, low: datetime | None, high: datetime | None
) -> None:
    held = storable(record(taken_at=moment)).taken_at
    between = Between(low, high)
    if held is not None and (low or high):
        assert _finds(ImageFilter(taken_at=between), held) == between.holds(held)


@pytest.mark.parametrize("moment", [EARLIEST + timedelta(microseconds=1), WHEN])
@pytest.mark.parametrize("bound", UNKEPT)
def test_a_date_bound_outside_the_stored_range_matches_all_or_none(
    moment: datetime, bound: datetime
) -> None:
    assert _finds(ImageFilter(taken_at=Between(bound, None)), moment) == (bound < moment)
    assert _finds(ImageFilter(taken_at=Between(None, bound)), moment) == (bound > moment)


async def test_the_fake_stores_the_same_values(small_spec: ModelSpec) -> None:
    index = FakeImageIndex()
    collection = await index.ensure_collection(small_spec)
    await index.upsert(collection, [record(taken_at=UNKEPT[0], added_at=UNKEPT[-1])])
    for bounds in (Between(UNKEPT[0], UNKEPT[-1]), Between(None, LATEST), Between(EARLIEST, None)):
        found = await index.search(
            collection, record().vector, 10, where=ImageFilter(taken_at=bounds)
        )
        assert not found
    (match,) = await index.search(
        collection, record().vector, 10, details=["taken_at", "added_at", "modified_at"]
    )
    assert match.details == {"taken_at": None, "added_at": None, "modified_at": WHEN}
