"""Decoding: what a model is shown of every kind of file, and what is refused."""

import contextlib
import io
import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from imaging.decode import decode
from imaging.jpeg_xl import dimensions, is_jpeg_xl
from imaging.media_types import FORMATS, MEDIA_TYPES, RAW_MEDIA_TYPE, sniff_media_type

WRITERS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
    "image/heif": "HEIF",
    "image/jxl": "JXL",
}


def red_and_blue(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(data: bytes, spec: ModelSpec) -> tuple[list[int], list[int]]:
    """The colour well inside the left and the right half."""
    pixels = decode(data, spec).pixels
    middle = spec.height // 2
    return pixels[middle, 2].tolist(), pixels[middle, -3].tolist()


def is_red_and_blue(found: tuple[list[int], list[int]], tolerance: int = 40) -> bool:
    red, blue = np.array(found[0]), np.array(found[1])
    return bool(
        np.abs(red - [255, 0, 0]).max() <= tolerance
        and np.abs(blue - [0, 0, 255]).max() <= tolerance
    )


def test_every_format_has_a_plugin() -> None:
    assert set(FORMATS) <= set(Image.OPEN)


@pytest.mark.parametrize("media_type", sorted(WRITERS))
def test_every_format_is_read(media_type: str, small_spec: ModelSpec) -> None:
    data = encoded(red_and_blue(), WRITERS[media_type])
    found = decode(data, small_spec)
    assert found.pixels.shape == (16, 16, 3)
    assert found.pixels.dtype == np.uint8
    assert (found.width, found.height) == (64, 48)
    assert is_red_and_blue(colours(data, small_spec))
    assert sniff_media_type(data[:64]) in {media_type, "image/heic"}


def test_every_suffix_names_a_type_that_is_read() -> None:
    assert set(MEDIA_TYPES.values()) <= set(WRITERS) | {"image/heic", RAW_MEDIA_TYPE}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str, small_spec: ModelSpec) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 0x8080, np.uint16))
    else:
        image = Image.new("L", (30, 20), 128).convert(mode)
    pixels = decode(encoded(image, "TIFF"), small_spec).pixels
    assert pixels.shape == (16, 16, 3)
    if mode in ("L", "P", "RGBA", "LA", "I;16"):
        assert np.abs(pixels.astype(int) - 128).max() <= 1


def test_16_bit_grey_is_scaled_not_clipped(small_spec: ModelSpec) -> None:
    image = Image.fromarray(np.full((20, 30), 1000, np.uint16))
    assert decode(encoded(image), small_spec).pixels.max() == 4


def test_transparent_pixels_get_the_models_background(small_spec: ModelSpec) -> None:
    hidden = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert decode(encoded(hidden), small_spec).pixels.min() == 255
    on_black = small_spec.model_copy(update={"background": "black"})
    assert decode(encoded(hidden), on_black).pixels.max() == 0


def test_exif_rotation_is_applied(small_spec: ModelSpec) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # The camera was held on its side.
    turned = red_and_blue().transpose(Image.Transpose.ROTATE_90)
    found = decode(encoded(turned, "JPEG", exif=exif, quality=95), small_spec)
    assert (found.width, found.height) == (64, 48)
    assert is_red_and_blue(colours(encoded(turned, "JPEG", exif=exif), small_spec))


def test_the_first_frame_of_an_animation_counts(small_spec: ModelSpec) -> None:
    frames = [red_and_blue(), Image.new("RGB", (64, 48), "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert is_red_and_blue(colours(data, small_spec))


def test_the_middle_is_cropped_where_the_model_wants_it(small_spec: ModelSpec) -> None:
    spec = small_spec.model_copy(update={"resize_mode": "shortest_edge_center_crop"})
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 255, 0), (30, 0, 60, 30))
    pixels = decode(encoded(wide), spec).pixels
    assert pixels.shape == (16, 16, 3)
    assert pixels[8, 8].tolist() == [0, 255, 0]
    assert pixels[8, 2].tolist() == [0, 255, 0]
    stretched = decode(encoded(wide), small_spec).pixels
    assert stretched[8, 1].tolist() == [255, 0, 0]


def test_time_position_and_camera_are_read_from_exif(small_spec: ModelSpec) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "RICOH"
    exif[ExifTags.Base.Model] = "RICOH GR III"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = "2024:02:29 18:30:05"
    details[ExifTags.Base.OffsetTimeOriginal] = "+02:00"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "S"
    gps[ExifTags.GPS.GPSLatitude] = (33.0, 51.0, 25.2)
    gps[ExifTags.GPS.GPSLongitudeRef] = "E"
    gps[ExifTags.GPS.GPSLongitude] = (151.0, 12.0, 54.0)
    found = decode(encoded(red_and_blue(), "JPEG", exif=exif), small_spec)
    assert found.taken_at == datetime(2024, 2, 29, 16, 30, 5, tzinfo=UTC)
    assert found.camera == "RICOH GR III"
    assert found.latitude == pytest.approx(-33.857)
    assert found.longitude == pytest.approx(151.215)


@pytest.mark.parametrize("stamp", ["", "0000:00:00 00:00:00", "yesterday", "2024:13:01 10:00:00"])
def test_an_invalid_date_is_omitted(stamp: str, small_spec: ModelSpec) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = stamp
    assert decode(encoded(red_and_blue(), "JPEG", exif=exif), small_spec).taken_at is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file\n" * 20, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (encoded(red_and_blue(), "JPEG")[:300], "picture"),
        (encoded(red_and_blue(640, 480), "WEBP")[:-90], "picture"),
    ],
    ids=["empty", "text", "svg", "png-head", "jpeg-head", "webp-cut"],
)
def test_an_incomplete_image_is_rejected(data: bytes, reason: str, small_spec: ModelSpec) -> None:
    with pytest.raises(Rejected, match=reason):
        decode(data, small_spec)


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_before_it_is_decoded(small_spec: ModelSpec) -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(Rejected, match="too many pixels"):
        decode(bomb, small_spec)
    with pytest.raises(Rejected, match="64 x 48"):
        decode(encoded(red_and_blue()), small_spec, max_pixels=3000)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.randoms(use_true_random=False))
def test_a_damaged_file_is_decoded_or_rejected(media_type: str, chance: random.Random) -> None:
    spec = ModelSpec(
        name="small",
        version="0123456789ab",
        dimension=8,
        width=16,
        height=16,
        resize_mode="stretch",
        licence="Apache-2.0",
    )
    data = bytearray(encoded(red_and_blue(), WRITERS[media_type]))
    for _ in range(chance.randint(1, 12)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    cut = bytes(data[: chance.randint(0, len(data))])
    with contextlib.suppress(Rejected):
        assert decode(cut, spec, max_pixels=1_000_000).pixels.shape == (16, 16, 3)


def test_a_truncated_jpeg_is_decoded_as_far_as_it_goes(small_spec: ModelSpec) -> None:
    image = red_and_blue(640, 480)
    image.paste(Image.effect_noise((640, 240), 90).convert("RGB"), (0, 240))
    data = encoded(image, "JPEG")
    found = decode(data[: len(data) * 3 // 4], small_spec)
    assert (found.width, found.height) == (640, 480)
    assert np.abs(found.pixels[:8].astype(int) - decode(data, small_spec).pixels[:8]).max() <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        (8, 8),
        (256, 256),
        (64, 48),
        (1, 1),
        (300, 200),
        (1000, 1),
        (513, 9000),
        (160, 90),
        (70000, 3),
    ],
)
@pytest.mark.parametrize("boxed", [False, True])
def test_the_size_of_a_jpeg_xl_is_read_without_decoding(size: tuple[int, int], boxed: bool) -> None:
    data = encoded(Image.new("L", size), "JXL", use_container=boxed, effort=1)
    assert is_jpeg_xl(data)
    assert dimensions(data) == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (kind, mode)
        for kind in ("PNG", "TIFF", "WEBP")
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16")
        if (kind, mode) != ("PNG", "CMYK")  # which the format does not have
    ],
)
def test_an_image_shrunk_during_decoding_looks_the_same(
    kind: str, mode: str, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = red_and_blue(640, 480)
    image.paste(Image.radial_gradient("L").resize((320, 240)), (100, 100))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    else:
        image = image.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(image, kind, exif=exif, **lossless)
    whole = decode(data, small_spec)
    monkeypatch.setattr("imaging.shrink.BIG_PIXELS", 1000)
    small = decode(data, small_spec)
    assert (small.width, small.height) == (whole.width, whole.height) == (480, 640)
    assert small.media_type == whole.media_type
    difference = np.abs(small.pixels.astype(int) - whole.pixels)
    assert difference.mean() < 2
    assert difference.max() < 40
    cut = data[: len(data) // 2]
    if kind == "WEBP":  # of which no viewer shows a part
        with pytest.raises(Rejected, match="damaged"):
            decode(cut, small_spec)
    else:
        part = decode(cut, small_spec)
        assert (part.width, part.height) == (480, 640)
