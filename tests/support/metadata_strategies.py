"""Strategies for arbitrary metadata of images, and for the headers around it."""

from __future__ import annotations

from functools import cache
from typing import Final

from hypothesis import strategies as st

from tests.support.metadata_builders import (
    ALTITUDE,
    ASCII,
    CHANGED,
    IN_DETAILS,
    LATITUDE,
    LATITUDE_REF,
    LONGITUDE,
    LONGITUDE_REF,
    MAKE,
    MODEL,
    RATIONAL,
    SIGNED_RATIONAL,
    WRITERS,
    XMP,
    Entry,
    dated,
    exif,
    image_with_metadata,
    rationals,
    text,
    xmp,
)

ORIENTATION: Final = 0x0112
TEXTS: Final = (
    "",
    " ",
    "\0\0\0",
    "0000:00:00 00:00:00",
    "    :  :     :  :  ",
    "0001:01:01 00:00:00",
    "9999:12:31 23:59:59",
    "9999:12:31 24:00:00-12:00",
    "2024:02:30 00:00:00",
    "2024:05:06 24:00:00",
    "2016-12-31T23:59:60Z",
    "2024-05-06T07:08:09.123456789+14:00",
    "2024:05:06 07:08:09+99:99",
    "2024:05:06 07:08:09 PM [Europe/Berlin]",
    "\u0662\u0660\u0662\u0664:05:06 07:08:09",
    "+02:00",
    "   :  ",
    "South",
    "s\0",
    "48,12.5N",
    "-999,99,99W",
    "1e308",
    "nan",
    "Canon",
    "Canon Canon\x07EOS\u202e",
    "x" * 3000,
)
TAGS: Final = (
    *(MAKE, MODEL, CHANGED, XMP, ORIENTATION, *IN_DETAILS),
    *(LATITUDE, LATITUDE_REF, LONGITUDE, LONGITUDE_REF, ALTITUDE),
)
NAMES: Final = (
    "exif_DateTimeOriginal",
    "exif_DateTimeDigitized",
    "photoshop_DateCreated",
    "xmp_CreateDate",
    "tiff_Make",
    "tiff_Model",
    "tiff_Orientation",
    "exif_GPSLatitude",
    "exif_GPSLongitude",
)

words = st.sampled_from(TEXTS) | st.text(max_size=30)
tags = st.sampled_from(TAGS) | st.integers(0, 0xFFFF)
numbers = st.tuples(*[st.sampled_from((0, 1, 48, 90, 180, 2**32 - 1)) | st.integers(0, 999)] * 2)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """A valid tag, or one with any type, count and bytes."""
    tag = draw(tags)
    if draw(st.booleans()):
        kind = draw(st.sampled_from((ASCII, 1, 7)))
        encoding = draw(st.sampled_from(("utf-8", "utf-16", "utf-16-be", "latin-1")))
        return text(tag, draw(words).encode(encoding, "replace"), kind)
    if draw(st.booleans()):
        return rationals(tag, *draw(st.lists(numbers, min_size=1, max_size=4)))
    return Entry(
        tag,
        draw(st.sampled_from((RATIONAL, SIGNED_RATIONAL, 12, 13)) | st.integers(0, 20)),
        draw(st.integers(0, 9) | st.sampled_from((2**16, 2**31, 2**32 - 1))),
        draw(st.binary(max_size=30)),
    )


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, within: int) -> bytes:
    """The bytes with some of the first ones changed, or truncated."""
    data = bytearray(whole)
    last = min(within, len(data)) - 1
    if last >= 0:
        places = st.tuples(st.integers(0, last), st.integers(0, 255))
        for place, value in draw(st.lists(places, max_size=6)):
            data[place] = value
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


_directories = st.lists(entries(), max_size=5)
exifs = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.builds(exif, _directories, _directories, _directories),
    st.builds(exif, _directories, _directories, _directories).flatmap(lambda e: damaged(e, 300)),
)
# What XML cannot hold, a damaged packet has.
_plain = words.map(lambda word: "".join(c for c in word if c.isprintable()))
_packets = st.dictionaries(st.sampled_from(NAMES), _plain, max_size=5).map(
    lambda properties: xmp(**properties)
)
packets = st.one_of(
    st.none(),
    st.binary(max_size=60),
    _packets,
    _packets.flatmap(lambda packet: damaged(packet, 2000)),
)


@cache
def sample(kind: str) -> bytes:
    """An image of this format with all supported metadata."""
    about = dated(taken="2024:05:06 07:08:09", make="Ricoh", model="GR III")
    packet = xmp(exif_DateTimeOriginal="2024-05-06", exif_GPSLatitude="48,0N")
    return image_with_metadata(kind, about, packet)


files = st.sampled_from(WRITERS).flatmap(lambda kind: damaged(sample(kind), 600))
