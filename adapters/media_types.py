"""Which kinds of pictures are read, by suffix and by their first bytes. Imports no decoder."""

from typing import Final

RAW_MEDIA_TYPE: Final = "image/x-raw"
"""Of every camera's own format; there is no registered type that covers them."""
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
"""File name suffix (lower case) -> media type, of all formats that are read."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL")
"""Their names in Pillow."""


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


def media_type_of(data: bytes, kind: str) -> str:
    """The media type of a picture that was read as `kind`, Pillow's name: always one of ours."""
    return _OF_FORMAT.get(kind) or _heif_type(data[:64])


def _heif_type(head: bytes) -> str:
    found = sniff_media_type(head)
    return found if found in ("image/heic", "image/heif") else "image/heif"


def sniff_media_type(head: bytes) -> str | None:
    """The media type that the first bytes (64 suffice) of a file announce, if it is one of ours."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"BM"):
        return "image/bmp"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "image/tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return "image/jxl"
    if head.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")):
        return RAW_MEDIA_TYPE
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12])
    return None


_ISO_BRANDS: Final = {
    b"crx ": RAW_MEDIA_TYPE,
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
}
