"""Decodes an image file to an upright RGB image, with work-arounds for the decoders' limits.

The input is untrusted: pixel counts are checked before anything is decoded, and a file that cannot
be decoded at all is rejected with a reason. Imported only in worker processes
(`imaging.sandbox`), because decoders may crash.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import pillow_jxl  # noqa: F401 (registers JPEG XL with Pillow)
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from pillow_heif import register_heif_opener

from adapters.errors import DecoderMemory, Rejected
from adapters.index.facts import ImageMetadata
from imaging.bitmaps import rewrite
from imaging.camera_raw import develop, exif_of, is_camera_raw
from imaging.colours import flatten, profile_of
from imaging.frames import select_visible_frame
from imaging.jpeg_xl import dimensions, is_jpeg_xl, orientation, xmp_of
from imaging.limits import TooManyPixels, check_pixels
from imaging.media_types import FORMATS, RAW_MEDIA_TYPE, media_type_of, sniff_media_type
from imaging.metadata.exif import load_exif, read_metadata
from imaging.png_chunks import be_lenient
from imaging.salvage import (
    PARTIAL_FORMATS,
    fill_blank,
    fill_missing,
    is_flat,
    is_unread_jpeg,
    is_white,
    tolerate_truncation,
)
from imaging.shrink import SALVAGED, is_shrinkable, salvage, shrink_on_load
from imaging.tiffs import correct_samples, is_misread, register_12_bit_greys

JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"

register_heif_opener()
be_lenient()
register_12_bit_greys()
# Load every plugin now: `Image.open(formats=...)` only finds loaded ones.
Image.init()
# A JPEG with several images (stereo, gain maps, previews) is read as its first image. As Pillow's
# MPO it would not be scaled while it is decoded, and have a media type that browsers do not know.
Image.register_open("JPEG", JpegImageFile, lambda start: start.startswith(JPEG_START))
# Our own limit is a setting and is checked before anything is decoded; Pillow's is fixed.
Image.MAX_IMAGE_PIXELS = None

logger = logging.getLogger(__name__)

PIXELS_CHANGED: Final = 2
"""The `FACTS_VERSION` in which the pixels of some images changed."""

# Errors of Pillow and its plugins for input that they cannot read.
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
class UprightImage:
    """A decoded image as RGB, perhaps scaled down; `width` and `height` are the original's.

    `profile` is the ICC profile that still has to be applied, if there is one; `pixels_since` is as
    in `imaging.decoded_image.DecodedImage`.
    """

    image: Image.Image
    width: int
    height: int
    media_type: str
    description: ImageMetadata
    profile: bytes | None = None
    pixels_since: int = PIXELS_CHANGED


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image is to be opened; see `open_upright`."""

    edge: int
    background: str
    max_pixels: int


def open_upright(data: bytes, *, edge: int, background: str, max_pixels: int) -> UprightImage:
    """The upright image as RGB on `background`, at least `edge` in both directions if large enough.

    A damaged file is decoded as far as viewers show it.

    Raises:
        Rejected: empty, not an image, an unsupported format, nothing of it can be decoded, or
            over `max_pixels`.
        DecoderMemory: there was not enough memory.
    """
    if not data:
        raise Rejected("the file is empty")
    options = OpenOptions(edge, background, max_pixels)
    with _mapping_errors():
        if not is_camera_raw(data):
            return _read(data, options)
        try:
            image, width, height = develop(data, max_pixels)
            description = read_metadata(load_exif(lambda: exif_of(data)))
            return UprightImage(image, width, height, RAW_MEDIA_TYPE, description, pixels_since=0)
        except Rejected as error:
            # Cameras and their programs also write ordinary TIFFs with these tags.
            try:
                return _open(data, options)
            except (Rejected, *UNREADABLE):
                raise error from None


@contextmanager
def _mapping_errors() -> Iterator[None]:
    try:
        yield
    except TooManyPixels as error:
        raise Rejected(str(error)) from error
    except UnidentifiedImageError as error:
        raise Rejected("not a picture in a supported format") from error
    except MemoryError as error:
        raise DecoderMemory("decoding it takes more memory than is available") from error
    except UNREADABLE as error:
        raise Rejected(f"damaged picture: {error or type(error).__name__}") from error


def _read(data: bytes, options: OpenOptions) -> UprightImage:
    """As `_open`; for a damaged file, the result of the first recovery that succeeds."""
    if is_jpeg_xl(data):
        # Its plugin decodes the whole file when it opens it.
        check_pixels(*dimensions(data), options.max_pixels)
    try:
        return _open(data, options)
    except (Rejected, *UNREADABLE) as error:
        for attempt in (_open_partly, _open_salvaged, _open_rewritten):
            try:
                found = attempt(data, options)
            except (Rejected, *UNREADABLE):
                continue
            if found is not None:
                return found
        raise error


def _open(
    data: bytes, options: OpenOptions, *, whole: bool = True, white: bool = True
) -> UprightImage:
    """Decode with Pillow. If not `whole`, missing parts are `white`, else black."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        check_pixels(width, height, options.max_pixels)
        kind = image.format or ""
        xmp = _pop_xmp(image) or (xmp_of(data) if kind == "JXL" else None)
        since = 0 if _has_former_pixels(image, xmp) else PIXELS_CHANGED
        _find_exif(image)
        small = None
        if is_shrinkable(kind, width * height) or is_misread(image):
            small = shrink_on_load(data, kind, options.edge, options.background, whole=whole)
        if small is not None:
            # Pillow would decode the whole PNG to read metadata after its pixels.
            xmp = xmp or _pop_xmp(small)
            description = _metadata_of(image if kind == "TIFF" else small, xmp)
            decoded = small
        else:
            draft(image, options.edge)
            if not whole:
                fill_blank(image, white=white)
            image.load()
            description = _metadata_of(image, xmp or _pop_xmp(image))
            correct_samples(image)
            decoded = select_visible_frame(image)
        # Only if the pixels are still in the file's own colours.
        profile = profile_of(image)
        decoded_width = decoded.width
        _turn_upright(decoded, data)
        if decoded.width != decoded_width and kind != "TIFF":  # Pillow reports its turned size
            width, height = height, width
        flat = flatten(decoded, options.background)
        media_type = media_type_of(data, kind)
        return UprightImage(flat, width, height, media_type, description, profile, since)


def _has_former_pixels(image: Image.Image, xmp: object) -> bool:
    """Whether versions before `PIXELS_CHANGED` decoded the same pixels, as of most images.

    They turned images by XMP, used invisible first frames, and read rare formats differently.
    """
    content = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    if isinstance(content, bytes) and b"rientation" in content:
        return False
    if image.format == "JPEG":
        return "exif" in image.info or not _unusual_exif(image)
    if image.format not in ("PNG", "WEBP", "AVIF", "HEIF") or getattr(image, "n_frames", 1) > 1:
        return False
    return image.mode in ("RGB", "RGBA", "P") or (
        image.mode == "L" and "transparency" not in image.info
    )


def _open_rewritten(data: bytes, options: OpenOptions) -> UprightImage | None:
    rewritten = rewrite(data, options.max_pixels)
    return None if rewritten is None else _open(rewritten, options)


def _open_partly(data: bytes, options: OpenOptions) -> UprightImage | None:
    """The part that Pillow decodes before the data ends or becomes invalid."""
    with Image.open(io.BytesIO(data), formats=PARTIAL_FORMATS) as image:
        interlaced = bool(image.info.get("interlace"))
    if data.startswith(JPEG_START):
        data += JPEG_END
    with tolerate_truncation():
        found = _open(data, options, whole=False)
        if found.media_type == "image/jpeg" and is_unread_jpeg(found.image):
            return None
        if is_flat(found.image):
            again = _open(data, options, whole=False, white=False)
            if again.image.tobytes() != found.image.tobytes():
                return None
    if interlaced:
        found = replace(found, image=fill_missing(found.image, is_white(found.image)))
    return found


def _open_salvaged(data: bytes, options: OpenOptions) -> UprightImage | None:
    """The part that libvips can decode."""
    kind = SALVAGED.get(sniff_media_type(data[:64]) or "")
    if kind is None:
        return None
    image, width, height = salvage(data, kind, options.edge, options.background, options.max_pixels)
    media_type = media_type_of(data, kind)
    if is_flat(image) or (media_type == "image/jpeg" and is_unread_jpeg(image)):
        return None
    description, before = _metadata_of(image, _pop_xmp(image)), image.width
    _turn_upright(image, data)
    if image.width != before:
        width, height = height, width
    return UprightImage(image, width, height, media_type, description)


def draft(image: Image.Image, edge: int) -> None:
    """Let the JPEG decoder scale by 1/2, 1/4 or 1/8, to at least `edge` in both directions.

    Scaled decoding averages in the frequency domain, at a fraction of the cost of full decoding.
    The final resize still halves the image at least, so the decoder's filter hardly matters.
    """
    if image.format == "JPEG":
        image.draft(None, (edge, edge))


def _metadata_of(image: Image.Image, xmp: object) -> ImageMetadata:
    return read_metadata(load_exif(image.getexif), xmp)


def _pop_xmp(image: Image.Image) -> object:
    """Remove and return the XMP packet: Pillow would turn the image by it, but viewers do not."""
    found = [image.info.pop(name, None) for name in ("xmp", "XML:com.adobe.xmp")]
    return next((each for each in found if each), None)


def _find_exif(image: Image.Image) -> None:
    """Accept a JPEG's EXIF whatever the padding of its marker, as viewers do."""
    if "exif" not in image.info and (content := _unusual_exif(image)):
        image.info["exif"] = b"Exif\0\0" + content[6:]


def _unusual_exif(image: Image.Image) -> bytes | None:
    segments = getattr(image, "applist", ())
    return next((c for name, c in segments if name == "APP1" and c.startswith(b"Exif\0")), None)


def _turn_upright(image: Image.Image, data: bytes) -> None:
    """Turn the image by its EXIF orientation, in place."""
    try:
        if image.format == "JXL":
            # The decoder has turned it, unless the file held a JPEG, which it returns as it was.
            if not getattr(image, "jpeg", False):
                return
            image.getexif()[ExifTags.Base.Orientation] = orientation(data)
        ImageOps.exif_transpose(image, in_place=True)
    except UNREADABLE as error:
        # Damaged metadata must not make the image unreadable.
        logger.info("EXIF orientation ignored: %s", error)
