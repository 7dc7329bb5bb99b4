"""Images with times, cameras and coordinates in their metadata, valid or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from PIL import Image

from tests.corpus.builders import HEIGHT, NOTHING, WIDTH, Case, Facts, shown
from tests.support.metadata_builders import (
    FRACTION_TAKEN,
    MAKE,
    MODEL,
    OFFSET_TAKEN,
    TAKEN,
    dated,
    exif,
    image_with_metadata,
    located,
    text,
    xmp,
)

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
STAMP = "2024:05:06 07:08:09"
SYDNEY = ((33, 1), (51, 1), (252, 10))
EAST = ((151, 1), (12, 1), (54, 1))
TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
    "JXL": "image/jxl",
}


def _case(
    name: str,
    facts: Facts = NOTHING,
    about: bytes | None = None,
    packet: bytes | None = None,
    kind: str = "JPEG",
) -> Case:
    plain = Image.new("RGB", (WIDTH, HEIGHT), "teal")
    data = image_with_metadata(kind, about, packet, plain.size)
    return shown(f"{kind.lower()} {name}", data, TYPES[kind], plain, facts=facts)


def cases() -> Iterator[Case]:
    """Each format that has metadata, then values of time, camera and coordinates."""
    for kind in TYPES:
        yield _case("with a capture time", Facts(WHEN), dated(taken=STAMP), kind=kind)
        yield _case(
            "with an XMP packet alone",
            Facts(WHEN),
            packet=xmp(exif_DateTimeOriginal="2024-05-06T09:08:09+02:00"),
            kind=kind,
        )
    yield from _times()
    yield from _cameras()
    yield from _coordinates()


def _times() -> Iterator[Case]:
    for name, blank in (
        ("of zeros", "0000:00:00 00:00:00"),
        ("of blanks", "    :  :     :  :  "),
        ("of the year 1", "0001:01:01 00:00:00"),
        ("of the year 9999", "9999:12:31 23:59:59"),
    ):
        yield _case(f"with a capture time {name}", about=dated(taken=blank))
        yield _case(
            f"with a capture time {name} and a good time of change",
            Facts(WHEN),
            dated(taken=blank, changed=STAMP),
        )
    yield _case(
        "with a time of digitizing alone", Facts(WHEN), dated(scanned="2024-05-06 07:08:09")
    )
    yield _case("with a time in ISO 8601", Facts(WHEN), dated(taken="2024-05-06T09:08:09+02:00"))
    entries = [
        text(TAKEN, "2024:05:06 09:08:09"),
        text(OFFSET_TAKEN, "+02:00"),
        text(FRACTION_TAKEN, "25"),
    ]
    precise = WHEN.replace(microsecond=250_000)
    yield _case("with an offset and a part of a second", Facts(precise), exif(details=entries))


def _cameras() -> Iterator[Case]:
    for name, make, model, camera in (
        ("whose model names its maker", "Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("whose model does not name its maker", "FUJIFILM", "X100V", "FUJIFILM X100V"),
        ("whose camera has two lines", "Acme\n", "One\r\nTwo", "Acme One Two"),
    ):
        about = exif([text(MAKE, make), text(MODEL, model)])
        yield _case(name, Facts(camera=camera), about)


def _coordinates() -> Iterator[Case]:
    sydney = Facts(latitude=-33.857, longitude=151.215)
    yield _case("of Sydney", sydney, located(SYDNEY, "S", EAST, "E"))
    yield _case("of Sydney in small letters", sydney, located(SYDNEY, "s", EAST, "east"))
    north = Facts(latitude=33.857, longitude=151.215)
    yield _case("of a place without hemispheres", north, located(SYDNEY, None, EAST, None))
    nowhere = ((0, 1), (0, 1), (0, 1))
    yield _case("of the place 0, 0", about=located(nowhere, "N", nowhere, "E"))
    yield _case(
        "of a place beyond the pole", about=located(((91, 1), (0, 1), (0, 1)), "N", EAST, "E")
    )
    packet = xmp(exif_GPSLatitude="33,51.42S", exif_GPSLongitude="151,12.9E")
    yield _case("of Sydney by its XMP packet", sydney, packet=packet)
