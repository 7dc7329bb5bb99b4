"""Of several frames or a damaged file, the visible and readable part is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from imaging.decode import decode
from imaging.decode_memory import memory_needed
from imaging.jpeg_xl import orientation
from imaging.thumbnail import check, thumbnail
from tests.corpus.builders import (
    CORNERS,
    above,
    card,
    clear,
    jpeg_xl_of,
    large,
    oriented,
    png_chunk,
    png_with,
    saved,
    vips,
)
from tests.corpus.camera_raw import camera_tiff


def looks_like(data: bytes, upright: Image.Image, spec: ModelSpec) -> float:
    """How far apart their pixels are, on the average, of 255."""
    plain = decode(saved(upright, "PNG"), spec).pixels.astype(int)
    return float(np.abs(decode(data, spec).pixels - plain).mean())


def test_a_jpeg_of_several_images_is_scaled_while_it_is_decoded(small_spec: ModelSpec) -> None:
    one = Image.new("RGB", (1600, 1200), "red")
    several = saved(one, "MPO", save_all=True, append_images=[Image.new("RGB", (800, 600))])
    assert check(several) == "image/jpeg"
    assert decode(several, small_spec).media_type == "image/jpeg"
    assert memory_needed(several, small_spec) == memory_needed(saved(one, "JPEG"), small_spec)


def swapped_profile() -> bytes:
    """A profile whose red is sRGB's green, and the other way round."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for at in range(132, 132 + 12 * count, 12):
        name = bytes(profile[at : at + 4])
        profile[at : at + 4] = names.get(name, name)
    return bytes(profile)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGB", {}),
    ],
)
def test_a_thumbnail_is_srgb_for_every_colour_space(
    kind: str, mode: str, options: dict[str, object]
) -> None:
    data = saved(card(mode), kind, icc_profile=swapped_profile(), **options)
    small = Image.open(io.BytesIO(thumbnail(data, edge=128)))
    assert "icc_profile" not in small.info
    red, green, blue = CORNERS[0]
    found = np.asarray(small.getpixel((4, 4)), int)
    assert np.abs(found - [green, red, blue]).max() < 40


@pytest.mark.slow
def test_a_thumbnail_of_noise_is_small() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (600, 600, 3)).astype(np.uint8)
    data = saved(Image.fromarray(noise), "PNG")
    for edge in (128, 256, 512):
        assert len(thumbnail(data, edge=edge)) < 100_000
    assert len(thumbnail(saved(large(20), "JPEG", quality=95), edge=512)) < 100_000


@pytest.mark.slow
def test_texts_of_a_png_are_decompressed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    before = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self.inner = before()

        def decompress(self, data: bytes, most: int) -> bytes:
            found = self.inner.decompress(data, most)
            unpacked.append(len(found))
            return found

        @property
        def unconsumed_tail(self) -> bytes:
            return self.inner.unconsumed_tail

    monkeypatch.setattr("PIL.PngImagePlugin.zlib.decompressobj", Counting)
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    assert check(png_with(text * 40)) == "image/png"
    assert 0 < sum(unpacked) <= 30_000_000


@pytest.mark.slow
def test_exif_in_a_png_beside_too_much_text_is_read(
    small_spec: ModelSpec,
) -> None:
    tags = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    text = png_chunk(b"tEXt", b"Comment\0" + b"t" * 20_000_000)
    found = decode(png_with(text, png_chunk(b"eXIf", tags)), small_spec)
    assert (found.width, found.height) == (32, 48)


@pytest.mark.parametrize("number", range(1, 9))
def test_the_orientation_of_a_jpeg_xl_comes_from_its_codestream(number: int) -> None:
    assert orientation(jpeg_xl_of(oriented(number))) == number
    assert orientation(saved(card(), "JXL", effort=3)) == 1


def test_a_tiff_that_may_be_a_raw_file_gets_memory_for_either(small_spec: ModelSpec) -> None:
    data = camera_tiff(b"NIKON CORPORATION")
    assert memory_needed(data, small_spec) >= max(4 * len(data), 4 * 48 * 32)


@pytest.mark.slow
def test_the_pixel_limit_applies_to_every_way_to_read_an_image(small_spec: ModelSpec) -> None:
    for data in (
        camera_tiff(b"SONY"),
        saved(large(), "PNG")[:9000],
        bytes(vips(np.asarray(card(), np.float32) / 255).tiffsave_buffer()),
        saved(large().quantize(8), "GIF")[:2000],
    ):
        with pytest.raises(Rejected, match=r"too many pixels: [0-9]+ x"):
            decode(data, small_spec, max_pixels=1000)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_first_frame_with_content_represents_an_animation(
    kind: str, small_spec: ModelSpec
) -> None:
    later = Image.new("RGBA", card().size, "black")
    options = {} if kind == "AVIF" else {"duration": [40, 50, 60, 70]}
    data = saved(
        clear(), kind, save_all=True, append_images=[clear(), card("RGBA"), later], **options
    )
    assert looks_like(data, card(), small_spec) < 10
    first = Image.open(io.BytesIO(thumbnail(data, edge=128)))
    assert np.abs(np.asarray(first.getpixel((4, 4)), int) - CORNERS[0]).max() < 60


def test_an_empty_first_frame_represents_a_truncated_animation(
    small_spec: ModelSpec,
) -> None:
    data = saved(clear(), "PNG", save_all=True, append_images=[large(1).convert("RGBA")])
    at = data.index(b"fdAT")
    cut = decode(data[: at + 20], small_spec)
    assert cut.pixels.min() == 255


def test_a_16_bit_image_with_alpha_looks_the_same_shrunk(
    small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = np.asarray(large(), np.uint16) * 257
    deep = np.dstack([deep, np.full(deep.shape[:2], 65535, np.uint16)])
    data = bytes(vips(deep).copy(interpretation="rgb16").pngsave_buffer())
    monkeypatch.setattr("imaging.shrink.BIG_PIXELS", 1000)
    assert looks_like(data, large(), small_spec) < 3


def test_a_truncated_big_image_is_decoded_as_far_as_it_goes(
    small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = large()
    monkeypatch.setattr("imaging.shrink.BIG_PIXELS", 1000)
    for kind in ("PNG", "TIFF"):
        data = saved(whole, kind)
        found = decode(data[: len(data) // 2], small_spec)
        assert (found.width, found.height) == whole.size
        upper = decode(saved(above(whole, whole.height // 2, "white"), "PNG"), small_spec)
        assert np.abs(found.pixels[:7].astype(int) - upper.pixels[:7]).mean() < 10
