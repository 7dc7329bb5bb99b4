"""Odd, damaged and hostile pictures, made on the spot, each with what must become of it.

Their kinds are those of public bug reports of Pillow, libheif, libjxl, LibRaw, Immich and
PhotoPrism; nothing is copied from there. `docs/formats.md` lists them: `python -m tests.corpus`
writes its table anew.
"""
