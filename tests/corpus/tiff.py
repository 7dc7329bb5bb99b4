"""TIFFs, as scanners and programs write them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.builders import (
    Case,
    card,
    exif,
    gradient,
    grey_card,
    saved,
    shown,
    turned,
    vips,
)

TYPE = "image/tiff"


def cases() -> Iterator[Case]:
    """All of these."""
    yield shown("tiff", saved(card(), "TIFF"), TYPE)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        data = saved(card(), "TIFF", compression=compression)
        yield shown(f"tiff {compression}", data, TYPE)
    black = card("1").convert("RGB")
    yield shown(
        "tiff with fax compression", saved(card("1"), "TIFF", compression="group4"), TYPE, black
    )
    yield shown("tiff CMYK", saved(card("CMYK"), "TIFF"), TYPE)
    yield shown("tiff P", saved(card("P"), "TIFF"), TYPE)
    yield shown("tiff with alpha", saved(card("RGBA"), "TIFF"), TYPE)
    yield shown("tiff YCbCr", saved(card("YCbCr"), "TIFF"), TYPE)
    yield shown("tiff grey with alpha", saved(card("LA"), "TIFF"), TYPE, grey_card())
    pages = saved(card(), "TIFF", save_all=True, append_images=[gradient()])
    yield shown("tiff of two pages", pages, TYPE)
    for number in range(2, 9):
        data = saved(turned(card(), number), "TIFF", tiffinfo=exif(number))
        yield shown(f"tiff orientation {number}", data, TYPE)
    yield from _deep()
    yield from _laid_out()


def _deep() -> Iterator[Case]:
    grey = np.asarray(card("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    yield shown("tiff 16-bit grey", saved(deep, "TIFF"), TYPE, grey_card())
    yield shown("tiff 32-bit float", saved(card("F"), "TIFF"), TYPE, grey_card())
    share = Image.fromarray(grey.astype(np.float32) / 255)
    yield shown("tiff 32-bit float from 0 to 1", saved(share, "TIFF"), TYPE, grey_card())
    colours = np.asarray(card(), np.uint16) * 257
    data = bytes(vips(colours).copy(interpretation="rgb16").tiffsave_buffer())
    yield shown("tiff 16-bit RGB", data, TYPE)
    opaque = np.dstack([colours, np.full(colours.shape[:2], 65535, np.uint16)])
    data = bytes(vips(opaque).copy(interpretation="rgb16").tiffsave_buffer())
    yield shown("tiff 16-bit RGB with alpha", data, TYPE)
    both = np.dstack([colours[:, :, 0], np.full(colours.shape[:2], 65535, np.uint16)])
    data = bytes(vips(both).copy(interpretation="grey16").tiffsave_buffer())
    red = card().getchannel(0).convert("RGB")
    yield shown("tiff 16-bit grey with alpha", data, TYPE, red)
    linear = (np.asarray(card(), np.float32) / 255) ** 2.2
    data = bytes(vips(linear).copy(interpretation="scrgb").tiffsave_buffer())
    yield shown("tiff 32-bit float RGB", data, TYPE, distance=20)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(card(), srgb, lab, outputMode="LAB")
    assert found is not None
    yield shown("tiff Lab", saved(found, "TIFF"), TYPE)


def _laid_out() -> Iterator[Case]:
    image = vips(card())
    layouts: dict[str, dict[str, object]] = {
        "in tiles": {"tile": True, "tile_width": 16, "tile_height": 16},
        "with 64-bit offsets (BigTIFF)": {"bigtiff": True},
        "as a pyramid": {"pyramid": True, "tile": True, "tile_width": 16, "tile_height": 16},
        "lzw with a predictor": {"compression": "lzw", "predictor": "horizontal"},
    }
    for name, options in layouts.items():
        yield shown(f"tiff {name}", bytes(image.tiffsave_buffer(**options)), TYPE)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(card(), "TIFF", icc_profile=profile + bytes(1_500_000))
    yield shown("tiff with an ICC profile of 1.5 MB", data, TYPE)
    yield shown("tiff with trailing bytes", saved(card(), "TIFF") + bytes(99), TYPE)
