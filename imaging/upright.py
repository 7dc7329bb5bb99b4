"""Bytes to an upright picture in RGB: all that is known of what decoders can and cannot do.

Untrusted input: pixel counts are checked before anything is decoded, and what nothing can be shown
of is refused with the reason. Imported in worker processes alone (`imaging.sandbox`), as no check
keeps a decoder from crashing.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import pillow_jxl  # noqa: F401 (makes JPEG XL known to Pillow)
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from pillow_heif import register_heif_opener

from adapters.errors import DecoderMemory, Rejected
from adapters.index.facts import ImageMetadata
from imaging.bitmaps import plainer
from imaging.camera_raw import develop, exif_of, is_camera_raw
from imaging.colours import flatten, profile_of
from imaging.frames import to_what_shows
from imaging.jpeg_xl import dimensions, is_jpeg_xl, orientation, xmp_of
from imaging.limits import TooManyPixels, check_pixels
from imaging.media_types import FORMATS, RAW_MEDIA_TYPE, media_type_of, sniff_media_type
from imaging.metadata.exif import described, loaded
from imaging.png_chunks import be_lenient
from imaging.salvage import PARTLY, blank, is_flat, is_unread_jpeg, is_white, spread, tolerant
from imaging.shrink import SALVAGED, is_for_us, salvaged, shrunk
from imaging.tiffs import as_meant, is_misread, know_more

JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"

register_heif_opener()
be_lenient()
know_more()
# Makes every plugin known now: `Image.open(formats=...)` looks names up in what is loaded.
Image.init()
# A JPEG that holds more pictures (stereo, gain maps, previews) is its first one, and no format of
# its own: as Pillow's MPO it is not scaled while it is decoded, and has a type no browser knows.
Image.register_open("JPEG", JpegImageFile, lambda start: start.startswith(JPEG_START))
# Our own limit, a setting, is checked before anything is unpacked; Pillow's is a fixed number.
Image.MAX_IMAGE_PIXELS = None

logger = logging.getLogger(__name__)

PIXELS_CHANGED: Final = 2
"""The `FACTS_VERSION` since which some pictures have other pixels than before."""

# Everything Pillow and its plugins raise for input they cannot read.
UNREADABLE: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Upright:
    """A decoded picture as RGB, perhaps scaled down; `width` and `height` are the original's.

    `profile` is the ICC profile that the pixels are still in, if there is one; `pixels_since` is as
    in `imaging.decoded_image.Picture`.
    """

    image: Image.Image
    width: int
    height: int
    media_type: str
    about: ImageMetadata
    profile: bytes | None = None
    pixels_since: int = PIXELS_CHANGED


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a picture is to be opened; see `open_upright`."""

    edge: int
    background: str
    max_pixels: int


def open_upright(data: bytes, *, edge: int, background: str, max_pixels: int) -> Upright:
    """The upright picture as RGB on `background`, at least `edge` each way if it is that large.

    What a viewer shows of a damaged one is the picture.

    Raises:
        Rejected: empty, not a picture, an unsupported format, nothing can be decoded of it, or
            over `max_pixels`.
        DecoderMemory: there was not enough of it.
    """
    if not data:
        raise Rejected("the file is empty")
    wanted = Wanted(edge, background, max_pixels)
    with _refusing():
        if not is_camera_raw(data):
            return _read(data, wanted)
        try:
            image, width, height = develop(data, max_pixels)
            about = described(loaded(lambda: exif_of(data)))
            return Upright(image, width, height, RAW_MEDIA_TYPE, about, pixels_since=0)
        except Rejected as error:
            # Cameras and their programs write ordinary TIFFs with the same tags.
            try:
                return _opened(data, wanted)
            except (Rejected, *UNREADABLE):
                raise error from None


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except TooManyPixels as error:
        raise Rejected(str(error)) from error
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except MemoryError as error:
        raise DecoderMemory("decoding it takes more memory than there is for it") from error
    except UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error


def _read(data: bytes, wanted: Wanted) -> Upright:
    """As `_opened`, or else what is shown of it by the first that shows something."""
    if is_jpeg_xl(data):
        # Its plugin unpacks all when it opens a file.
        check_pixels(*dimensions(data), wanted.max_pixels)
    try:
        return _opened(data, wanted)
    except (Rejected, *UNREADABLE) as error:
        for attempt in (_partly_opened, _salvaged, _plainer):
            try:
                found = attempt(data, wanted)
            except (Rejected, *UNREADABLE):
                continue
            if found is not None:
                return found
        raise error


def _opened(data: bytes, wanted: Wanted, *, whole: bool = True, white: bool = True) -> Upright:
    """Not `whole`, what is missing of the picture is `white`, or black."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        check_pixels(width, height, wanted.max_pixels)
        kind = image.format or ""
        packet = _take_xmp(image) or (xmp_of(data) if kind == "JXL" else None)
        since = 0 if _is_as_ever(image, packet) else PIXELS_CHANGED
        _find_exif(image)
        small = None
        if is_for_us(kind, width * height) or is_misread(image):
            small = shrunk(data, kind, wanted.edge, wanted.background, whole=whole)
        if small is not None:
            # A PNG would be decoded whole for what may come after its pixels.
            packet = packet or _take_xmp(small)
            about = _metadata_of(image if kind == "TIFF" else small, packet)
            decoded = small
        else:
            draft(image, wanted.edge)
            if not whole:
                blank(image, white=white)
            image.load()
            about = _metadata_of(image, packet or _take_xmp(image))
            as_meant(image)
            decoded = to_what_shows(image)
        # What its numbers mean, where they are still the file's own.
        profile = profile_of(image)
        decoded_width = decoded.width
        _turn_upright(decoded, data)
        if decoded.width != decoded_width and kind != "TIFF":  # Pillow tells its turned size
            width, height = height, width
        flat = flatten(decoded, wanted.background)
        media_type = media_type_of(data, kind)
        return Upright(flat, width, height, media_type, about, profile, since)


def _is_as_ever(image: Image.Image, packet: object) -> bool:
    """Whether versions before `PIXELS_CHANGED` made the same pixels of it, which is true of most.

    They turned pictures by XMP, took first frames that show nothing, and read rare kinds otherwise.
    """
    said = packet.encode("utf-8", "replace") if isinstance(packet, str) else packet
    if isinstance(said, bytes) and b"rientation" in said:
        return False
    if image.format == "JPEG":
        return "exif" in image.info or not _marked_otherwise(image)
    if image.format not in ("PNG", "WEBP", "AVIF", "HEIF") or getattr(image, "n_frames", 1) > 1:
        return False
    return image.mode in ("RGB", "RGBA", "P") or (
        image.mode == "L" and "transparency" not in image.info
    )


def _plainer(data: bytes, wanted: Wanted) -> Upright | None:
    rewritten = plainer(data, wanted.max_pixels)
    return None if rewritten is None else _opened(rewritten, wanted)


def _partly_opened(data: bytes, wanted: Wanted) -> Upright | None:
    """What Pillow has of it when the data ends or makes no sense any more."""
    with Image.open(io.BytesIO(data), formats=PARTLY) as image:
        interlaced = bool(image.info.get("interlace"))
    if data.startswith(JPEG_START):
        data += JPEG_END
    with tolerant():
        found = _opened(data, wanted, whole=False)
        if found.media_type == "image/jpeg" and is_unread_jpeg(found.image):
            return None
        if is_flat(found.image):
            again = _opened(data, wanted, whole=False, white=False)
            if again.image.tobytes() != found.image.tobytes():
                return None
    if interlaced:
        found = replace(found, image=spread(found.image, is_white(found.image)))
    return found


def _salvaged(data: bytes, wanted: Wanted) -> Upright | None:
    """What libvips has of it."""
    kind = SALVAGED.get(sniff_media_type(data[:64]) or "")
    if kind is None:
        return None
    image, width, height = salvaged(data, kind, wanted.edge, wanted.background, wanted.max_pixels)
    media_type = media_type_of(data, kind)
    if is_flat(image) or (media_type == "image/jpeg" and is_unread_jpeg(image)):
        return None
    about, before = _metadata_of(image, _take_xmp(image)), image.width
    _turn_upright(image, data)
    if image.width != before:
        width, height = height, width
    return Upright(image, width, height, media_type, about)


def draft(image: Image.Image, edge: int) -> None:
    """Let the JPEG decoder scale by 1/2, 1/4 or 1/8, to no less than `edge` each way.

    Its scaled decoding averages in the frequency domain, which costs a fraction of the full one;
    the final resize then still halves at least, so little of the decoder's filter is left to see.
    """
    if image.format == "JPEG":
        image.draft(None, (edge, edge))


def _metadata_of(image: Image.Image, packet: object) -> ImageMetadata:
    return described(loaded(image.getexif), packet)


def _take_xmp(image: Image.Image) -> object:
    """Its XMP packet, taken from it: Pillow turns a picture as that says, and no viewer does."""
    found = [image.info.pop(name, None) for name in ("xmp", "XML:com.adobe.xmp")]
    return next((each for each in found if each), None)


def _find_exif(image: Image.Image) -> None:
    """Take a JPEG's EXIF for EXIF whatever fills up its mark, as viewers do."""
    if "exif" not in image.info and (content := _marked_otherwise(image)):
        image.info["exif"] = b"Exif\0\0" + content[6:]


def _marked_otherwise(image: Image.Image) -> bytes | None:
    segments = getattr(image, "applist", ())
    return next((c for name, c in segments if name == "APP1" and c.startswith(b"Exif\0")), None)


def _turn_upright(image: Image.Image, data: bytes) -> None:
    """Turn the picture as its EXIF orientation says, in place."""
    try:
        if image.format == "JXL":
            # Its decoder has turned it, unless the file held a JPEG, which it gives as it was.
            if not getattr(image, "jpeg", False):
                return
            image.getexif()[ExifTags.Base.Orientation] = orientation(data)
        ImageOps.exif_transpose(image, in_place=True)
    except UNREADABLE as error:
        # Damaged metadata is no reason to lose the picture.
        logger.info("EXIF orientation ignored: %s", error)
