"""Pictures in the terminal: by kitty's or iTerm's protocol, or in coloured half blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from PIL import Image

ImageProtocol = Literal["kitty", "iterm", "blocks"]

ROWS: Final = 8
"""Height of a picture, in lines of text."""
COLUMNS: Final = 2 * ROWS
KITTY_CHUNK: Final = 4096


def image_protocol(environment: Mapping[str, str], *, is_terminal: bool) -> ImageProtocol | None:
    """How this terminal shows pictures, by its environment variables; None if it does not."""
    if not is_terminal or environment.get("TERM") in (None, "dumb"):
        return None
    program = environment.get("TERM_PROGRAM", "")
    # Multiplexers drop the escape sequences of pictures.
    if not environment.get("TMUX") and not environment.get("STY"):
        if environment.get("KITTY_WINDOW_ID") or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm"):
            return "iterm"
    return "blocks" if environment.get("COLORTERM") in ("truecolor", "24bit") else None


def lines(data: bytes, protocol: ImageProtocol) -> Iterator[str]:
    """The lines to print to show a thumbnail, which is a JPEG."""
    from PIL import Image

    # Only JPEG: the server that answered may not be a gateway.
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as opened:
        image = opened.convert("RGB")
    if protocol == "blocks":
        yield from _blocks(image)
    else:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        yield (_kitty if protocol == "kitty" else _iterm)(buffer.getvalue())


def _kitty(png: bytes) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol/, transmitted and shown in chunks."""
    text = base64.b64encode(png).decode()
    chunks = [text[start : start + KITTY_CHUNK] for start in range(0, len(text), KITTY_CHUNK)]
    shown = ""
    for number, chunk in enumerate(chunks):
        head = f"a=T,f=100,r={ROWS}," if number == 0 else ""
        shown += f"\x1b_G{head}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
    return shown


def _iterm(png: bytes) -> str:
    """https://iterm2.com/documentation-images.html"""
    text = base64.b64encode(png).decode()
    return f"\x1b]1337;File=inline=1;size={len(png)};height={ROWS};preserveAspectRatio=1:{text}\a"


def _blocks(image: Image.Image) -> Iterator[str]:
    """Two pixels per character: the upper one as a half block, the lower one as its background."""
    small = image.copy()
    small.thumbnail((COLUMNS, 2 * ROWS))
    # An odd last row would have no pixels below it.
    height = small.height - small.height % 2 or 2
    small = small.resize((small.width, height))
    for y in range(0, small.height, 2):
        line = ""
        for x in range(small.width):
            upper, lower = small.getpixel((x, y)), small.getpixel((x, y + 1))
            line += f"\x1b[38;2;{_colour(upper)};48;2;{_colour(lower)}m▀"
        yield line + "\x1b[0m"


def _colour(pixel: object) -> str:
    assert isinstance(pixel, tuple)  # noqa: S101 (what getpixel gives for RGB)
    return ";".join(str(part) for part in pixel)
