"""Camera names are complete, legible and not repeated, and the filter finds them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from gateway.search.filters import Filters
from imaging.decode import decode
from imaging.metadata.texts import TEXT_CHARACTERS, camera_name, legible, name, text_of
from tests.support.metadata_builders import (
    ASCII,
    MAKE,
    MODEL,
    Entry,
    exif,
    image_with_metadata,
    text,
    xmp,
)


def camera(make: str | bytes, model: str | bytes, spec: ModelSpec) -> str | None:
    about = exif([text(MAKE, make), text(MODEL, model)])
    found = decode(image_with_metadata("WEBP", about), spec).camera
    if found is not None:
        # Weaviate compares texts without white space at their ends.
        assert Filters(camera=found).where().camera == found
    return found


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("CANON", "Canon EOS 5D", "Canon EOS 5D"),
        ("Canon", "CANON EOS 5D", "CANON EOS 5D"),
        ("Canon", "EOS 5D by Canon", "EOS 5D by Canon"),
        ("Canon", "Canon Canon EOS 5D", "Canon EOS 5D"),
        ("canon", "Canon CANON Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("EASTMAN KODAK COMPANY", "KODAK EASYSHARE C813", "KODAK EASYSHARE C813"),
        ("RICOH IMAGING COMPANY, LTD.", "RICOH GR III", "RICOH GR III"),
        ("LG Electronics", "LG-H815", "LG-H815"),
        ("DJI", "DJI", "DJI"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("FUJIFILM", "X-T4", "FUJIFILM X-T4"),
        ("Digital Camera Co", "Camera 3000", "Digital Camera Co Camera 3000"),
        ("Canon", "", "Canon"),
        ("", "EOS 5D", "EOS 5D"),
        ("", "", None),
        (" ", " \t ", None),
        ("\0\0", "\0", None),
        ("----", "???", None),
        ("\x01\x02", "\x7f", None),
        ("Canon\0rest", "EOS\0rest", "Canon EOS"),
        ("Ca\x07non", "EOS\r\n5D", "Ca non EOS 5D"),
        ("  Canon  ", "EOS   5D", "Canon EOS 5D"),
        ("Can\u200bon", "\u202eEOS\ufeff", "Canon EOS"),
        (b"M\xc3\xbcller", b"\xe4\xba\xac", "Müller 京"),
        (b"M\xfcller", b"K\xf6ln", "Müller Köln"),
        ("Cano\u006e\u0303", "x", "Canoñ x"),
        ("Canon".encode("utf-16"), "EOS".encode("utf-16-le"), "Canon EOS"),
        ("Canon".encode("utf-16-be"), "EOS", "Canon EOS"),
        (b"\xff\xff\xff\xff", b"\x80\x81", None),
    ],
)
def test_a_cameras_name_combines_make_and_model(
    make: str | bytes, model: str | bytes, expected: str | None, small_spec: ModelSpec
) -> None:
    assert camera(make, model, small_spec) == expected


@pytest.mark.parametrize(
    ("make", "model"),
    [
        ("x" * 100_000, "y"),
        ("x", "y" * 100_000),
        ("x " * 100_000, "é " * 100_000),
        (" " * 100_000 + "x", "y"),
        ("x" * 199, " y"),
        ("Canon " * 1000, "Canon " * 1000),
    ],
)
def test_a_cameras_name_is_truncated(make: str, model: str, small_spec: ModelSpec) -> None:
    found = camera(make, model, small_spec)
    assert found
    assert len(found) <= TEXT_CHARACTERS


def test_values_that_are_not_text_are_no_camera_name(small_spec: ModelSpec) -> None:
    numbers = [Entry(MAKE, 3, 3, b"\x07\x00\x08\x00\x09\x00"), text(MODEL, "GR III")]
    assert decode(image_with_metadata(about=exif(numbers)), small_spec).camera == "GR III"
    as_bytes = [text(MAKE, "Ricoh", 7), text(MODEL, "GR III", 1)]
    assert decode(image_with_metadata(about=exif(as_bytes)), small_spec).camera == "Ricoh GR III"
    unended = [Entry(MAKE, ASCII, 5, b"Ricoh"), Entry(MODEL, ASCII, 6, b"GR III")]
    assert decode(image_with_metadata(about=exif(unended)), small_spec).camera == "Ricoh GR III"


def test_xmp_gives_what_exif_lacks(small_spec: ModelSpec) -> None:
    xmp_packet = xmp(tiff_Make="Ricoh", tiff_Model="GR III")
    assert (
        decode(image_with_metadata("WEBP", exif(), xmp_packet), small_spec).camera == "Ricoh GR III"
    )
    about = exif([text(MAKE, "\x01"), text(MODEL, "GR II")])
    assert (
        decode(image_with_metadata("WEBP", about, xmp_packet), small_spec).camera == "Ricoh GR II"
    )


@given(st.one_of(st.text(), st.binary()), st.one_of(st.text(), st.binary()))
def test_any_camera_name_can_be_searched(make: str | bytes, model: str | bytes) -> None:
    names = [name(text_of(each)) for each in (make, model)]
    found = camera_name(names[0], names[1])
    if found is None:
        return
    assert 0 < len(found) <= TEXT_CHARACTERS
    assert legible(found) == found
    assert not any(unicodedata.category(character).startswith("C") for character in found)
    assert Filters(camera=found).where().camera == found
