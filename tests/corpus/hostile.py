"""Files that are not images, or that demand too many resources."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from tests.corpus.builders import Case, png_bomb, saved


def cases() -> Iterator[Case]:
    """All of these."""
    yield Case("zero bytes", b"", "empty")
    yield Case("one byte", b"\xff", "not a picture")
    yield Case("text named .jpg", b"a letter to nobody\n" * 50, "not a picture")
    yield Case("HTML named .png", b"<!doctype html><title>404</title>", "not a picture")
    yield Case("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture")
    yield Case("PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not a picture")
    yield Case("zip", b"PK\x03\x04" + b"\0" * 60, "not a picture")
    yield Case("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")
    yield Case("zeros", b"\0" * 5000, "not a picture")
    yield Case("png bomb 30000 x 30000", png_bomb(30_000, 30_000), "too many pixels")
    yield Case("png bomb 2^31-1 squared", png_bomb(2**31 - 1, 2**31 - 1), "too many pixels")
    yield Case("png of no width", png_bomb(0, 5), "picture")
    # A small header: height in 18 bits, then the ratio 1:1, and nothing more.
    jxl = (0b10 << 1 | (199_999 << 3) | (1 << 21)).to_bytes(4, "little")
    yield Case("jpeg xl bomb 200000 x 200000", b"\xff\x0a" + jxl + b"\0" * 40, "too many pixels")
    huge = Image.new("1", (20_000, 20_000))
    yield Case("gif bomb 20000 x 20000", saved(huge, "GIF"), "too many pixels")
    yield Case("tiff bomb 20000 x 20000", saved(huge, "TIFF", compression="group4"), "too many")
    yield Case("JPEG 2000", saved(Image.new("RGB", (9, 9)), "JPEG2000"), "not a picture")
    yield Case("video", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(999), "not a picture")
    yield Case(
        "AppleDouble", b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(99), "not a picture"
    )
    yield Case(
        "pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n", "not a picture"
    )
