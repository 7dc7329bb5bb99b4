"""Builds images with metadata byte by byte: EXIF as a TIFF directory, and XMP."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import pillow_jxl  # noqa: F401 (makes JPEG XL known to Pillow)
from PIL import Image, PngImagePlugin
from pillow_heif import register_heif_opener

register_heif_opener()

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_RATIONAL = 1, 2, 3, 4, 5, 7, 10
EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
MAKE, MODEL, XMP = 0x010F, 0x0110, 0x02BC
CHANGED, TAKEN, SCANNED = 0x0132, 0x9003, 0x9004
OFFSET, OFFSET_TAKEN, OFFSET_SCANNED = 0x9010, 0x9011, 0x9012
FRACTION, FRACTION_TAKEN, FRACTION_SCANNED = 0x9290, 0x9291, 0x9292
IN_DETAILS = (TAKEN, SCANNED, *range(0x9010, 0x9013), *range(0x9290, 0x9293))
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE = range(1, 7)


class Entry(NamedTuple):
    """One tag, with its value as bytes of the file."""

    tag: int
    kind: int
    length: int
    data: bytes


def text(tag: int, value: str | bytes, kind: int = ASCII) -> Entry:
    data = (value.encode() if isinstance(value, str) else value) + b"\0"
    return Entry(tag, kind, len(data), data)


def rationals(tag: int, *pairs: tuple[int, int], kind: int = RATIONAL) -> Entry:
    packing = "<2i" if kind == SIGNED_RATIONAL else "<2I"
    return Entry(tag, kind, len(pairs), b"".join(struct.pack(packing, *pair) for pair in pairs))


def exif(
    main: Sequence[Entry] = (), details: Sequence[Entry] = (), gps: Sequence[Entry] = ()
) -> bytes:
    """EXIF with these three directories."""
    pointers = 2
    at = 8 + _length(main, pointers)
    inner = _directory(details, at)
    where = [at, at + len(inner)]
    last = _directory(gps, where[1])
    links = [
        Entry(tag, LONG, 1, struct.pack("<I", place))
        for tag, place in zip((EXIF_DIRECTORY, GPS_DIRECTORY), where, strict=True)
    ]
    return b"II*\0" + struct.pack("<I", 8) + _directory([*main, *links], 8) + inner + last


def _length(entries: Sequence[Entry], more: int = 0) -> int:
    longer = sum(len(each.data) + len(each.data) % 2 for each in entries if len(each.data) > 4)
    return 2 + 12 * (len(entries) + more) + 4 + longer


def _directory(entries: Sequence[Entry], at: int) -> bytes:
    directory, longer = struct.pack("<H", len(entries)), b""
    after = at + 2 + 12 * len(entries) + 4
    for tag, kind, length, data in sorted(entries):
        value = data.ljust(4, b"\0")
        if len(data) > 4:
            value = struct.pack("<I", after + len(longer))
            longer += data + b"\0" * (len(data) % 2)
        directory += struct.pack("<HHI", tag, kind, length) + value
    return directory + bytes(4) + longer


def dated(**stamps: str | bytes) -> bytes:
    """EXIF with these texts, by the names above in lower case: `taken="2024:…"`."""
    entries = [text(globals()[name.upper()], value) for name, value in stamps.items()]
    return exif(
        [each for each in entries if each.tag not in IN_DETAILS],
        [each for each in entries if each.tag in IN_DETAILS],
    )


def located(
    latitude: Sequence[tuple[int, int]],
    north: str | bytes | None,
    longitude: Sequence[tuple[int, int]],
    east: str | bytes | None,
    *more: Entry,
    kind: int = RATIONAL,
) -> bytes:
    """EXIF with these coordinates."""
    entries = [
        rationals(LATITUDE, *latitude, kind=kind),
        rationals(LONGITUDE, *longitude, kind=kind),
        *more,
    ]
    if north is not None:
        entries.append(text(LATITUDE_REF, north))
    if east is not None:
        entries.append(text(LONGITUDE_REF, east))
    return exif(gps=entries)


NAMESPACES = (
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
)


def xmp(**properties: str) -> bytes:
    """A packet with these properties as attributes: `exif_GPSLatitude="48,12N"`."""
    attributes = " ".join(
        f"{name.replace('_', ':', 1)}={quoteattr(value)}" for name, value in properties.items()
    )
    return packet(f'<rdf:Description rdf:about="" {NAMESPACES} {attributes}/>')


def packet(description: str) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"{description}</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


WRITERS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL")


def image_with_metadata(
    kind: str = "JPEG",
    about: bytes | None = None,
    packet: bytes | None = None,
    size: tuple[int, int] = (8, 8),
) -> bytes:
    """An image of this format with these bytes as EXIF and XMP."""
    buffer = io.BytesIO()
    image = Image.new("RGB", size, "teal")
    options: dict[str, object] = {}
    if about is not None:
        options["exif"] = b"Exif\0\0" + about
        if kind == "TIFF":
            options["exif"] = Image.Exif()
            options["exif"].load(about)  # type: ignore[attr-defined]
    if packet is not None:
        if kind == "PNG":
            png_info = PngImagePlugin.PngInfo()
            png_info.add_itxt("XML:com.adobe.xmp", packet.decode("utf-8", "replace"))
            options["pnginfo"] = png_info
        elif kind == "TIFF":
            options["tiffinfo"] = {XMP: packet}
        else:
            options["xmp"] = packet
    image.save(buffer, kind, **options)
    return buffer.getvalue()
