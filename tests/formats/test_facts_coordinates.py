"""Coordinates are on Earth and in the right hemisphere, or absent."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from imaging.decode import decode
from imaging.metadata.coordinates import (
    EAST_OR_WEST,
    NORTH_OR_SOUTH,
    degrees,
    degrees_of_text,
    known_coordinates,
)
from tests.support.metadata_builders import (
    ALTITUDE,
    ALTITUDE_REF,
    BYTE,
    LATITUDE,
    LATITUDE_REF,
    LONGITUDE,
    LONGITUDE_REF,
    SIGNED_RATIONAL,
    Entry,
    exif,
    image_with_metadata,
    located,
    rationals,
    text,
    xmp,
)

SYDNEY = ((33, 1), (51, 1), (252, 10))
EAST = ((151, 1), (12, 1), (54, 1))
NOWHERE = (None, None)


def coordinates(about: bytes, spec: ModelSpec, packet: bytes | None = None) -> Any:
    found = decode(image_with_metadata("WEBP", about, packet), spec)
    assert (found.latitude is None) == (found.longitude is None)
    return (found.latitude, found.longitude)


@pytest.mark.parametrize(
    "south",
    ["S", "s", "S\0\0", " S", "S ", "South", "SOUTH", "south latitude", b"s\0rest", b"S\0\0\0"],
)
@pytest.mark.parametrize("west", ["W", "w", "West", "WEST\0"])
def test_a_hemisphere_is_written_in_many_ways(
    south: str | bytes, west: str, small_spec: ModelSpec
) -> None:
    expected = pytest.approx((-33.857, -151.215))
    assert coordinates(located(SYDNEY, south, EAST, west), small_spec) == expected


@pytest.mark.parametrize("unknown", ["", " ", "\0", "X", "None", "unknown", "O", "5", "\ufffd"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_unreadable_hemisphere_gives_no_position(
    unknown: str, which: int, small_spec: ModelSpec
) -> None:
    north, east = (unknown, "E") if which == 0 else ("S", unknown)
    assert coordinates(located(SYDNEY, north, EAST, east), small_spec) == NOWHERE
    # Each has its own two.
    assert coordinates(located(SYDNEY, "E", EAST, "N"), small_spec) == NOWHERE


def test_seconds_may_be_invalid_when_minutes_have_decimals(small_spec: ModelSpec) -> None:
    nothing = (0, 0)
    north, east = ((33, 1), (5142, 100), nothing), ((151, 1), (129, 10), nothing)
    assert coordinates(located(north, "N", east, "E"), small_spec) == pytest.approx(
        (33.857, 151.215)
    )
    for parts in ((nothing, (51, 1), (25, 1)), ((33, 1), nothing, (25, 1)), ((33, 1), (1, 0))):
        assert coordinates(located(parts, "N", EAST, "E"), small_spec) == NOWHERE


def test_a_hemisphere_may_have_the_type_of_bytes_but_not_be_a_number(
    small_spec: ModelSpec,
) -> None:
    both = [rationals(LATITUDE, *SYDNEY), rationals(LONGITUDE, *EAST)]
    refs = [text(LATITUDE_REF, "S", BYTE), text(LONGITUDE_REF, "E", BYTE)]
    assert coordinates(exif(gps=[*both, *refs]), small_spec) == pytest.approx((-33.857, 151.215))
    refs[0] = Entry(LATITUDE_REF, 3, 1, b"\x53\x00")
    assert coordinates(exif(gps=[*both, *refs]), small_spec) == NOWHERE


@pytest.mark.parametrize(
    "degrees",
    [
        ((0, 0), (0, 0), (0, 0)),
        ((33, 1), (51, 0), (0, 1)),
        ((33, 0), (51, 1), (0, 1)),
        ((33, 1), (51, 1), (25, 0)),
        ((91, 1), (0, 1), (0, 1)),
        ((90, 1), (0, 1), (1, 1)),
        ((33, 1), (75, 1), (0, 1)),
        ((33, 1), (0, 1), (61, 1)),
        ((2**32 - 1, 1), (0, 1), (0, 1)),
        ((33, 1), (51, 1), (1, 1), (1, 1)),
    ],
)
def test_coordinates_outside_the_globe_are_no_position(
    degrees: tuple[tuple[int, int], ...], small_spec: ModelSpec
) -> None:
    assert coordinates(located(degrees, "S", EAST, "E"), small_spec) == NOWHERE
    assert (
        coordinates(located(SYDNEY, "S", (*degrees[:2], (181 * 3600, 1)), "E"), small_spec)
        == NOWHERE
    )


@pytest.mark.parametrize("letters", [("N", "E"), ("S", "W"), (None, None)])
@pytest.mark.parametrize("zero", [((0, 1), (0, 1), (0, 1)), ((0, 1), (0, 1), (1, 1_000_000))])
def test_zero_coordinates_are_no_position(
    letters: tuple[str | None, str | None], zero: Any, small_spec: ModelSpec
) -> None:
    assert coordinates(located(zero, letters[0], zero, letters[1]), small_spec) == NOWHERE
    found = coordinates(located(zero, letters[0], EAST, letters[1]), small_spec)
    assert (abs(found[0]), abs(found[1])) == pytest.approx((0, 151.215), abs=1e-6)
    zeros = xmp(exif_GPSLatitude="0,0.0N", exif_GPSLongitude="0,0.0E")
    assert coordinates(exif(), small_spec, zeros) == NOWHERE


@pytest.mark.parametrize(
    "degrees",
    [
        ((33, 1), (5142, 100)),
        ((33857, 1000),),
        ((33, 1), (51, 1), (252, 10)),
        ((33, 1), (5142, 100), (0, 1)),
        ((33857, 1000), (0, 1), (0, 1)),
    ],
)
def test_degrees_may_have_minutes_and_seconds(degrees: Any, small_spec: ModelSpec) -> None:
    found = coordinates(located(degrees, "S", EAST, "E"), small_spec)
    assert found == pytest.approx((-33.857, 151.215))


def test_the_sign_of_a_number_counts_without_a_hemisphere(small_spec: ModelSpec) -> None:
    south = ((-33, 1), (51, 1), (252, 10))
    about = located(south, None, EAST, None, kind=SIGNED_RATIONAL)
    assert coordinates(about, small_spec) == pytest.approx((-33.857, 151.215))
    about = located(south, "S", EAST, "E", kind=SIGNED_RATIONAL)
    assert coordinates(about, small_spec) == pytest.approx((-33.857, 151.215))


@pytest.mark.parametrize(
    "altitude",
    [
        (rationals(ALTITUDE, (0, 0)),),
        (rationals(ALTITUDE, (1, 0)), Entry(ALTITUDE_REF, BYTE, 1, b"\x07")),
        (text(ALTITUDE, "high"), text(ALTITUDE_REF, "up")),
        (Entry(ALTITUDE, 5, 9000, b""),),
    ],
)
def test_an_altitude_alone_is_no_position(altitude: Any, small_spec: ModelSpec) -> None:
    found = coordinates(located(SYDNEY, "S", EAST, "E", *altitude), small_spec)
    assert found == pytest.approx((-33.857, 151.215))


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        ("33,51.42S", "151,12.9E", (-33.857, 151.215)),
        ("33,51,25.2S", "151,12,54E", (-33.857, 151.215)),
        ("33,51.42s", "151,12.9e", (-33.857, 151.215)),
        ("33.857S", "151.215 E", (-33.857, 151.215)),
        ("-33.857", "151.215", (-33.857, 151.215)),
        ("33°51'25.2\" S", "151° 12' 54\" E", (-33.857, 151.215)),
        ("S 33 51.42", "E 151 12.9", (-33.857, 151.215)),
        ("33,51.42", "", NOWHERE),
        ("33,51.42X", "151,12.9E", NOWHERE),
        ("33,51.42S", "151,12.9S", NOWHERE),
        ("93,51.42S", "151,12.9E", NOWHERE),
        ("33,71.42S", "151,12.9E", NOWHERE),
        ("nanS", "infE", NOWHERE),
        ("1e1S", "1e1E", NOWHERE),
    ],
)
def test_the_position_is_read_from_xmp(
    latitude: str, longitude: str, expected: Any, small_spec: ModelSpec
) -> None:
    packet = xmp(exif_GPSLatitude=latitude, exif_GPSLongitude=longitude)
    found = coordinates(exif(), small_spec, packet)
    assert found == (expected if expected == NOWHERE else pytest.approx(expected))


def test_the_hemisphere_may_be_a_separate_xmp_property(small_spec: ModelSpec) -> None:
    packet = xmp(
        exif_GPSLatitude="33.857",
        exif_GPSLatitudeRef="South",
        exif_GPSLongitude="151.215",
        exif_GPSLongitudeRef="E",
    )
    assert coordinates(exif(), small_spec, packet) == pytest.approx((-33.857, 151.215))


def test_the_position_in_exif_takes_precedence_over_xmp(small_spec: ModelSpec) -> None:
    packet = xmp(exif_GPSLatitude="48,0N", exif_GPSLongitude="16,0E")
    found = coordinates(located(SYDNEY, "S", EAST, "E"), small_spec, packet)
    assert found == pytest.approx((-33.857, 151.215))
    assert coordinates(located(SYDNEY, "?", EAST, "E"), small_spec, packet) == (48, 16)


NUMBERS = st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none(), st.booleans())


@pytest.mark.slow
@given(
    st.one_of(NUMBERS, st.lists(NUMBERS, max_size=5), st.lists(NUMBERS, max_size=5).map(tuple)),
    st.one_of(st.none(), st.text(max_size=10), st.sampled_from(["N", "s", "West"])),
)
def test_any_value_is_a_position_or_none(parts: object, hemisphere: str | None) -> None:
    for signs in (NORTH_OR_SOUTH, EAST_OR_WEST):
        found = degrees(parts, hemisphere, signs)
        assert found is None or math.isfinite(found)
        where = known_coordinates(found, found)
        assert where is None or (abs(where[0]) <= 90 and any(where))


@pytest.mark.slow
@given(st.text(max_size=40))
def test_any_text_is_degrees_or_nothing(text: str) -> None:
    found = degrees_of_text(text, None, NORTH_OR_SOUTH)
    assert found is None or math.isfinite(found)
