"""The time of an image is its best plausible one, or absent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from adapters.embedder.spec import ModelSpec
from imaging.decode import decode
from imaging.metadata.capture_time import OLDEST, offset_of, parse_time
from imaging.metadata.exif import read_metadata
from tests.support.metadata_builders import (
    TAKEN,
    UNDEFINED,
    WRITERS,
    Entry,
    dated,
    exif,
    image_with_metadata,
    packet,
    text,
    xmp,
)

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
NOTHING = [
    "",
    " ",
    "\0" * 19,
    " " * 19,
    "    :  :     :  :  ",
    "0000:00:00 00:00:00",
    "0000-00-00T00:00:00",
    "0001:01:01 00:00:00",
    "1825:12:31 23:59:59",
    "9999:12:31 23:59:59",
    "2567:05:06 07:08:09",
    "2024:02:30 07:08:09",
    "2024:13:01 07:08:09",
    "2024:05:06 25:08:09",
    "2024:05:06 24:10:00",
    "2024:05:06 07:61:09",
    "06/05/2024 07:08:09",
    "5/6/24 07:08:09",
    "2024",
    "2024-05",
    "1714979289",
    "yesterday",
    "2024:05:06 07:08:09" + "x" * 100_000,
]


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("good", ["scanned", "changed"])
def test_an_empty_time_does_not_hide_another_field(
    nothing: str, good: str, small_spec: ModelSpec
) -> None:
    about = dated(**{"taken": nothing, good: "2024:05:06 07:08:09"})
    assert decode(image_with_metadata("TIFF", about), small_spec).taken_at == WHEN
    assert decode(image_with_metadata("TIFF", dated(taken=nothing)), small_spec).taken_at is None


def test_the_time_of_taking_comes_first(small_spec: ModelSpec) -> None:
    times = {"taken": "2024:05:06 07:08:09", "scanned": "2025:01:01 00:00:00"}
    assert decode(image_with_metadata(about=dated(**times)), small_spec).taken_at == WHEN
    times = {"scanned": "2024:05:06 07:08:09", "changed": "2025:01:01 00:00:00"}
    assert decode(image_with_metadata(about=dated(**times)), small_spec).taken_at == WHEN


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2024:05:06 07:08:09", 0),
        ("2024-05-06 07:08:09", 0),
        ("2024-05-06T07:08:09", 0),
        ("2024-05-06T07:08:09Z", 0),
        ("2024-05-06T09:08:09+02:00", 0),
        ("2024-05-06T09:08:09+0200", 0),
        ("2024:05:06 09:08:09 +02:00", 0),
        ("2024:05:06 03:38:09-03:30", 0),
        ("2024:05:06 03:38:09\N{MINUS SIGN}03:30", 0),
        ("2024:05:06 09:08:09 GMT+2", 0),
        ("2024:05:06 09:08:09+02:00[Europe/Berlin]", 0),
        ("2024:05:06 07:08:09 UTC", 0),
        ("2024:05:06 07:08:09 CEST", 0),
        ("2024:05:06 07:08:09+99:99", 0),
        ("2024:05:06 07:08:09.123", 0.123),
        ("2024-05-06T07:08:09,5", 0.5),
        ("2024-05-06T07:08:09.123456789Z", 0.123456),
        ("2024/05/06 07:08:09", 0),
        ("2024.05.06 07:08:09", 0),
        ("2024:5:6 7:8:9", 0),
        ("2024: 5: 6  7: 8: 9", 0),
        ("2024:05:06 7:08:09 AM", 0),
        ("20240506T070809Z", 0),
        ("20240506070809", 0),
        ("2024:05:06 07:08", -9),
        ("2024:05:06 07:08:  ", -9),
        ("2024-05-06", -9 - 8 * 60 - 7 * 3600),
        ("2024:05:06   :  :  ", -9 - 8 * 60 - 7 * 3600),
        ("2024:05:06 24:00:00", 86400 - 9 - 8 * 60 - 7 * 3600),
        ("2024:05:06 07:08:60", 50),
        ("2024:05:06 07:08:09\0\0\0", 0),
        (" 2024:05:06 07:08:09 ", 0),
        ("\u0662\u0660\u0662\u0664:\u0660\u0665:\u0660\u0666 07:08:09", 0),
        ("2024:05:06 07:08:09".encode("utf-16"), 0),
        ("2024:05:06 07:08:09".encode("utf-16-le"), 0),
        ("2024:05:06 07:08:09".encode("utf-16-be"), 0),
    ],
)
def test_every_notation_of_a_time_is_read(
    written: str | bytes, seconds: float, small_spec: ModelSpec
) -> None:
    expected = WHEN + timedelta(seconds=seconds)
    found = decode(image_with_metadata(about=dated(taken=written)), small_spec).taken_at
    assert found == expected


def test_a_time_may_have_the_type_of_bytes_or_lie_in_the_first_directory(
    small_spec: ModelSpec,
) -> None:
    stamp = text(TAKEN, "2024:05:06 07:08:09", UNDEFINED)
    assert decode(image_with_metadata(about=exif(details=[stamp])), small_spec).taken_at == WHEN
    blank = text(TAKEN, "    :  :     :  :  ")
    assert decode(image_with_metadata(about=exif([stamp])), small_spec).taken_at == WHEN
    assert decode(image_with_metadata(about=exif([stamp], [blank])), small_spec).taken_at == WHEN
    assert decode(image_with_metadata(about=exif([blank], [stamp])), small_spec).taken_at == WHEN
    numbers = Entry(TAKEN, 3, 3, b"\x07\x00\x08\x00\x09\x00")
    assert decode(image_with_metadata(about=exif(details=[numbers])), small_spec).taken_at is None


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"taken": "2024:05:06 09:08:09", "offset_taken": "+02:00"}, 0),
        ({"scanned": "2024:05:06 09:08:09", "offset_scanned": "+02:00"}, 0),
        ({"changed": "2024:05:06 09:08:09", "offset": "+02:00"}, 0),
        ({"taken": "2024:05:06 07:08:09", "offset_taken": "Z"}, 0),
        ({"taken": "2024:05:06 07:08:09", "offset_taken": "   :  "}, 0),
        ({"taken": "2024:05:06 07:08:09", "offset_taken": "+25:00"}, 0),
        ({"taken": "2024:05:06 07:08:09", "offset_taken": "+02:75"}, 0),
        # Its own offset counts; another field's offset counts where the times agree.
        ({"taken": "2024:05:06 09:08:09", "offset_taken": "+02:00", "offset": "-08:00"}, 0),
        ({"taken": "2024:05:06 09:08:09+02:00", "offset_taken": "-08:00"}, 0),
        ({"taken": "2024:05:06 09:08:09", "offset": "+02:00"}, 0),
        ({"taken": "2024:05:06 09:08:09", "offset": "+02:00", "offset_taken": "   :  "}, 0),
        ({"taken": "2024:05:06 09:08:09", "changed": "2024:05:06 09:08:09", "offset": "+02:00"}, 0),
        ({"taken": "2024:05:06 07:08:09", "changed": "2025:01:01 00:00:00", "offset": "+02:00"}, 0),
        ({"taken": "2024:05:06 07:08:09", "fraction_taken": "25"}, 0.25),
        ({"taken": "2024:05:06 07:08:09", "fraction_taken": "050 "}, 0.05),
        ({"taken": "2024:05:06 07:08:09", "fraction_taken": "123456789"}, 0.123456),
        ({"taken": "2024:05:06 07:08:09", "fraction_taken": "  "}, 0),
        ({"taken": "2024:05:06 07:08:09", "fraction_taken": "-1"}, 0),
        ({"taken": "2024:05:06 07:08:09.5", "fraction_taken": "25"}, 0.5),
        ({"taken": "2024:05:06 07:08:09", "fraction": "25", "fraction_scanned": "25"}, 0),
        ({"scanned": "2024:05:06 07:08:09", "fraction_scanned": "25"}, 0.25),
        ({"changed": "2024:05:06 07:08:09", "fraction": "25"}, 0.25),
    ],
)
def test_offsets_and_fractions_belong_to_their_times(
    tags: dict[str, str], expected: float, small_spec: ModelSpec
) -> None:
    found = decode(image_with_metadata(about=dated(**tags)), small_spec).taken_at
    assert found == WHEN + timedelta(seconds=expected)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_time_is_read_from_exif_in_every_format(kind: str, small_spec: ModelSpec) -> None:
    about = dated(taken="2024:05:06 07:08:09", make="Ricoh", model="GR III")
    found = decode(image_with_metadata(kind, about), small_spec)
    assert (found.taken_at, found.camera) == (WHEN, "Ricoh GR III")


@pytest.mark.parametrize("kind", WRITERS)
def test_the_time_is_read_from_xmp_in_every_format(kind: str, small_spec: ModelSpec) -> None:
    xmp_packet = xmp(
        exif_DateTimeOriginal="2024-05-06T09:08:09+02:00",
        tiff_Make="Ricoh",
        tiff_Model="GR III",
        exif_GPSLatitude="48,12.5N",
        exif_GPSLongitude="16,22,30W",
    )
    found = decode(image_with_metadata(kind, packet=xmp_packet), small_spec)
    assert (found.taken_at, found.camera) == (WHEN, "Ricoh GR III")
    assert found.latitude == pytest.approx(48 + 12.5 / 60)
    assert found.longitude == pytest.approx(-16.375)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_time_of_big_images_is_read_from_xmp(
    kind: str, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.shrink.BIG_PIXELS", 1000)
    xmp_packet = xmp(exif_DateTimeOriginal="2024-05-06T07:08:09")
    assert (
        decode(image_with_metadata(kind, packet=xmp_packet, size=(64, 64)), small_spec).taken_at
        == WHEN
    )


@pytest.mark.parametrize("name", ["photoshop_DateCreated", "exif_DateTimeDigitized"])
@pytest.mark.parametrize("taken", ["", "0000:00:00 00:00:00", "    :  :     :  :  "])
def test_xmp_supplements_exif_times(name: str, taken: str, small_spec: ModelSpec) -> None:
    data = image_with_metadata("WEBP", dated(taken=taken), xmp(**{name: "2024-05-06T07:08:09"}))
    assert decode(data, small_spec).taken_at == WHEN
    data = image_with_metadata(
        "WEBP", dated(taken="2024:05:06 07:08:09"), xmp(**{name: "2020-01-01T00:00:00"})
    )
    assert decode(data, small_spec).taken_at == WHEN


def test_xmp_may_be_written_in_elements(small_spec: ModelSpec) -> None:
    xmp_packet = packet(
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
        "<xmp:CreateDate>2024-05-06T07:08:09</xmp:CreateDate></rdf:Description>"
    )
    assert decode(image_with_metadata("WEBP", packet=xmp_packet), small_spec).taken_at == WHEN
    utf16 = xmp_packet.decode().replace("\ufeff", "", 1).encode("utf-16")
    assert decode(image_with_metadata("WEBP", packet=utf16), small_spec).taken_at == WHEN
    cut = xmp_packet.partition(b"</rdf:Description>")[0]
    assert decode(image_with_metadata("WEBP", packet=cut), small_spec).taken_at == WHEN


def test_xmp_about_other_images_is_ignored(small_spec: ModelSpec) -> None:
    xmp_packet = packet(
        '<rdf:Description rdf:about="" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/">'
        '<xmpMM:Pantry><rdf:Bag><rdf:li><rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmp:CreateDate="2024-05-06"/></rdf:li></rdf:Bag></xmpMM:Pantry></rdf:Description>'
    )
    assert decode(image_with_metadata("WEBP", packet=xmp_packet), small_spec).taken_at is None


def test_entities_in_xmp_are_not_expanded(small_spec: ModelSpec) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "2024">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 50}">' for n in range(12)
    )
    data = (bomb + "]>").encode() + xmp(exif_DateTimeOriginal="2024-05-06T07:08:09")
    assert decode(image_with_metadata("WEBP", packet=data), small_spec).taken_at is None


def test_times_after_tomorrow_are_ignored() -> None:
    now = datetime(2026, 11, 28, 23, tzinfo=UTC)
    assert parse_time("2026:11:29 23:59:59", now=now) is not None
    assert parse_time("2026:11:30 00:00:00", now=now) is None
    # If this machine's clock was never set, other times are not judged by it.
    assert parse_time("2024:05:06 07:08:09", now=datetime(1970, 1, 1, tzinfo=UTC)) == WHEN


@given(
    st.datetimes(min_value=datetime(1826, 1, 2), max_value=datetime(2025, 12, 31)),
    st.integers(-12 * 60, 14 * 60),
)
def test_every_instant_is_read_back(local: datetime, ahead: int) -> None:
    zone = timezone(timedelta(minutes=ahead))
    taken = local.replace(tzinfo=zone)
    offset = taken.isoformat()[-6:]
    assert parse_time(taken.isoformat()) == taken
    seconds = taken.replace(microsecond=0)
    assert parse_time(taken.strftime("%Y:%m:%d %H:%M:%S").zfill(19), offset=offset) == seconds


@pytest.mark.slow
@given(st.text(max_size=100), st.text(max_size=10), st.text(max_size=10))
def test_any_text_is_a_valid_time_or_none(text: str, offset: str, fraction: str) -> None:
    found = parse_time(text, offset=offset, fraction=fraction)
    assert found is None or (found >= OLDEST and found.tzinfo is UTC)
    assert abs(offset_of(offset) or timedelta()) <= timedelta(hours=14)


def test_an_unreadable_fact_does_not_hide_the_others() -> None:
    class Broken(dict[int, object]):
        def get(self, key: int, default: object = None) -> object:
            raise AssertionError(key)

    found = Image.Exif()
    found[ExifTags.Base.Make] = "Ricoh"
    found[ExifTags.Base.DateTime] = "2024:05:06 07:08:09"
    found.get_ifd(ExifTags.IFD.Exif)
    found._ifds[ExifTags.IFD.Exif] = Broken()
    found._ifds[ExifTags.IFD.GPSInfo] = Broken()
    about = read_metadata(found)
    assert (about.taken_at, about.camera, about.latitude) == (WHEN, "Ricoh", None)
