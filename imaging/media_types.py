"""Recognizes image formats by suffix and by first bytes. Imports no decoder."""

from typing import Final, Literal

RAW_MEDIA_TYPE: Final = "image/x-raw"
"""For all camera raw formats; no registered type covers them."""
RAW_SUFFIXES: Final = (
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".nrw",
    ".arw",
    ".srw",
    ".raf",
    ".orf",
    ".rw2",
    ".pef",
)

MEDIA_TYPES: Final[dict[str, str]] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jxl": "image/jxl",
    **dict.fromkeys(RAW_SUFFIXES, RAW_MEDIA_TYPE),
}
"""File name suffix (lower case) -> media type, for all supported formats."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL")
"""Pillow's names of the supported formats."""


_OF_FORMAT: Final = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "JXL": "image/jxl",
}


HEAD_BYTES: Final = 4096
"""Number of first bytes that decide what a file is."""


def media_type_of(data: bytes, kind: str) -> str:
    """The media type of an image that Pillow has read as format `kind`."""
    return _OF_FORMAT.get(kind) or _heif_type(data[:HEAD_BYTES])


def _heif_type(head: bytes) -> str:
    found = sniff_media_type(head)
    return found if found in ("image/heic", "image/heif") else "image/heif"


def suffix_of(name: str) -> str:
    """The suffix of a name with its dot, in lower case; empty if there is none."""
    _, dot, suffix = name.rpartition(".")
    return f".{suffix}".lower() if dot else ""


def content_type(head: bytes, name: str) -> str | None:
    """The media type of a file by its first bytes; None if it is not a supported image.

    The name only decides between a TIFF and a camera raw format that begins like one.
    """
    found = sniff_media_type(head)
    return RAW_MEDIA_TYPE if found == _TIFF and suffix_of(name) in RAW_SUFFIXES else found


def sniff_media_type(head: bytes) -> str | None:
    """The supported media type of a file by its first `HEAD_BYTES`; None if there is none."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"BM"):
        return "image/bmp" if int.from_bytes(head[14:18], "little") in _BMP_HEADERS else None
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return RAW_MEDIA_TYPE if _is_camera_raw(head) else _TIFF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return "image/jxl"
    if head.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")):
        return RAW_MEDIA_TYPE
    if head[4:8] == b"ftyp":
        return _type_by_brands(head)
    return None


def _type_by_brands(head: bytes) -> str | None:
    """By the brands in the first box of an ISO file: major brand first, then compatible ones."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    special = next((_ISO_BRANDS[brand] for brand in brands if brand in _ISO_BRANDS), None)
    return special or ("image/heif" if brands[0] in _ANY_CODEC else None)


def _is_camera_raw(head: bytes) -> bool:
    """Whether a file that begins like a TIFF is a CR2 or, by its first directory, a DNG."""
    if head[:4] == b"II*\0" and head[8:10] == b"CR":
        return True
    order: Literal["little", "big"] = "little" if head.startswith(b"II") else "big"
    at = int.from_bytes(head[4:8], order)
    count = int.from_bytes(head[at : at + 2], order)
    tags = range(at + 2, min(at + 2 + 12 * count, len(head) - 1), 12)
    return any(int.from_bytes(head[each : each + 2], order) == _DNG_VERSION for each in tags)


_TIFF: Final = "image/tiff"
_DNG_VERSION: Final = 50706
_BMP_HEADERS: Final = (12, 16, 40, 52, 56, 64, 108, 124)
"""Valid header sizes; `BM` alone says little."""
_ISO_BRANDS: Final = {
    b"crx ": RAW_MEDIA_TYPE,
    b"avif": "image/avif",
    b"avis": "image/avif",
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "image/heic"
    ),
}
_ANY_CODEC: Final = (b"mif1", b"msf1", b"mif2", b"miaf")
