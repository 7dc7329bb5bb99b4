"""JPEGs, as cameras, phones and programs write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyvips
from PIL import Image, ImageCms

from tests.corpus.builders import (
    HEIGHT,
    WIDTH,
    Case,
    card,
    exif,
    gradient,
    grey_card,
    jpeg_segment,
    large,
    oriented,
    saved,
    segments,
    shown,
    turned,
    vips,
)

TYPE = "image/jpeg"
_GAIN_MAP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
    b'hdrgm:Version="1.0"/></rdf:RDF></x:xmpmeta>'
)


def cases() -> Iterator[Case]:
    """All of these."""
    yield from _plain()
    yield from _of_several()
    yield from _around()
    yield from _beside()


def _plain() -> Iterator[Case]:
    yield shown("jpeg baseline", saved(gradient(), "JPEG"), TYPE, gradient())
    yield shown("jpeg progressive", saved(gradient(), "JPEG", progressive=True), TYPE, gradient())
    yield shown("jpeg grey", saved(card("L"), "JPEG"), TYPE, grey_card())
    yield shown("jpeg CMYK", saved(card("CMYK"), "JPEG"), TYPE)
    yield shown("jpeg 4:4:4", saved(card(), "JPEG", subsampling=0), TYPE)
    yield shown("jpeg 4:2:2", saved(card(), "JPEG", subsampling=1), TYPE)
    yield shown("jpeg quality 1", saved(card(), "JPEG", quality=1), TYPE, distance=40)
    yield shown("jpeg in RGB with Adobe's mark", _adobe_rgb(), TYPE)
    yield shown("jpeg in RGB without a mark", saved(card(), "JPEG", keep_rgb=True), TYPE)
    data = saved(card(), "JPEG", restart_marker_blocks=1)
    yield shown("jpeg with restart markers", data, TYPE)
    yield shown("jpeg named .png", saved(card(), "JPEG"), TYPE)
    for number in range(1, 9):
        yield shown(f"jpeg EXIF orientation {number}", oriented(number), TYPE)
    for number in (0, 9, 200):
        yield shown(f"jpeg EXIF orientation {number}", oriented(number), TYPE)
    big = turned(card(), 6).resize((HEIGHT * 20, WIDTH * 20), Image.Resampling.NEAREST)
    upright = card().resize((WIDTH * 20, HEIGHT * 20), Image.Resampling.NEAREST)
    data = saved(big, "JPEG", exif=exif(6), progressive=True)
    yield shown("jpeg of a phone held sideways", data, TYPE, upright)


def _adobe_rgb() -> bytes:
    """Adobe's segment with the transform 0: the three components are red, green and blue."""
    data = saved(card(), "JPEG", keep_rgb=True)
    adobe = jpeg_segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0))
    return data[:2] + adobe + data[2:]


def _of_several() -> Iterator[Case]:
    other = card().rotate(180)
    stereo = saved(card(), "MPO", save_all=True, append_images=[other])
    yield shown("jpeg of several pictures (stereo MPO)", stereo, TYPE)
    data = saved(turned(card(), 6), "MPO", save_all=True, append_images=[other], exif=exif(6))
    yield shown("jpeg of several pictures, rotated", data, TYPE)
    small = card().resize((12, 8))
    data = saved(card(), "MPO", save_all=True, append_images=[small, other])
    yield shown("jpeg of several pictures of other sizes", data, TYPE)
    gain = saved(card("L"), "JPEG")
    hdr = saved(card(), "MPO", save_all=True, append_images=[card("L")], xmp=_GAIN_MAP)
    yield shown("jpeg with a gain map (Ultra HDR)", hdr, TYPE)
    yield shown(
        "jpeg followed by a gain map that no index lists", saved(card(), "JPEG") + gain, TYPE
    )
    yield shown("jpeg of several pictures without the second", stereo[: -len(gain) // 2], TYPE)
    at = stereo.index(b"MPF\0")
    yield shown(
        "jpeg of several pictures with a broken index",
        stereo[: at + 4] + b"\xff" * 16 + stereo[at + 20 :],
        TYPE,
    )
    video = b"\0\0\0\x18ftypmp42" + bytes(12) + b"\0\0\0\x08mdat" + bytes(4000)
    yield shown("jpeg followed by a video (motion photo)", saved(card(), "JPEG") + video, TYPE)


def _around() -> Iterator[Case]:
    data = saved(card(), "JPEG")
    yield shown("jpeg with trailing bytes", data + b"\0" * 500, TYPE)
    yield shown("jpeg followed by HTML", data + b"<!-- served in 0.1 s -->\n" * 20, TYPE)
    for name, junk in (("a line feed", b"\n"), ("a byte order mark", b"\xef\xbb\xbf")):
        yield Case(f"jpeg after {name}", junk + data, "not a picture")
    offsets = [at for at, _ in segments(data)]
    middle = offsets[1]
    yield shown("jpeg with bytes between segments", data[:middle] + b"\0abc" + data[middle:], TYPE)
    filled = data[:middle] + b"\xff" * 20 + data[middle:]
    yield shown("jpeg with fill bytes between segments", filled, TYPE)
    yield shown("jpeg without its end", saved(large(), "JPEG")[:-2], TYPE, large())


def _beside() -> Iterator[Case]:
    data = saved(card(), "JPEG")

    def with_segment(marker: int, content: bytes, number: int = 1) -> bytes:
        return data[:2] + jpeg_segment(marker, content) * number + data[2:]

    broken = saved(card(), "JPEG", icc_profile=b"x")
    yield shown("jpeg with an ICC profile of garbage", broken, TYPE)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    huge = saved(card(), "JPEG", icc_profile=srgb + bytes(1_200_000))
    yield shown("jpeg with an ICC profile of 1.2 MB", huge, TYPE)
    in_lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield shown(
        "jpeg with a profile of other colours", saved(card(), "JPEG", icc_profile=in_lab), TYPE
    )
    yield shown("jpeg with EXIF of garbage", with_segment(0xE1, b"Exif\0\0garbage" * 9), TYPE)
    yield shown("jpeg with EXIF of length 0", with_segment(0xE1, b"Exif\0\0"), TYPE)
    loop = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    yield shown("jpeg with EXIF that refers to itself", with_segment(0xE1, loop), TYPE)
    yield shown("jpeg with 2 MB of comments", with_segment(0xFE, b"c" * 65000, 31), TYPE)
    yield shown(
        "jpeg with Photoshop's data", with_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 99), TYPE
    )
    yield shown("jpeg with a segment of 0 density", _no_density(data), TYPE)
    yield shown("jpeg with a preview in its EXIF", _with_preview(), TYPE)


def _no_density(data: bytes) -> bytes:
    at = data.index(b"JFIF\0")
    return data[: at + 7] + b"\x01\0\0\0\0" + data[at + 12 :]


def _with_preview() -> bytes:
    """With EXIF's second directory, whose picture is another one."""
    image: pyvips.Image = vips(card())
    data = bytes(image.jpegsave_buffer(Q=90))
    preview = saved(Image.new("RGB", (16, 12), "white"), "JPEG")
    first = struct.pack("<HHHIII", 1, 274, 3, 1, 1, 26)
    second = struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 26 + 30, 514, 4, 1, len(preview), 0)
    tags = b"II*\0" + struct.pack("<I", 8) + first + second
    tags = tags[: 26 + 30].ljust(26 + 30, b"\0") + preview
    return data[:2] + jpeg_segment(0xE1, b"Exif\0\0" + tags) + data[2:]
