"""The inputs given to open_clip; tools/open_clip_reference.py stores its answers.

Pictures are made with integers alone, so that they are the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).parents[1] / "unit" / "data" / "open_clip"
ANSWERS, PIXELS, MERGES = (
    DATA / name for name in ("answers.json", "pixels.npz.xz", "merges.txt.xz")
)
STEP = 48
"""Of the prepared pixels every 48th row and column is kept, which would reveal a shift."""

TEXTS = [
    "a photo of a cat",
    "A PHOTO OF A CAT",
    "two dogs playing on the beach",
    "  Two   dogs,\tplaying!\r\n on the Beach ",
    "sunset",
    "x",
    "",
    " \n\t ",
    "no-break\u00a0space thin\u2009space ideographic\u3000space",
    "zero\u200bwidth joi\u200dner soft\u00adhyphen word\u2060joiner",
    "line\u2028separator and\u0085next line\vtab\ffeed",
    "control \x07 characters \x1b[31mred\x1b[0m",
    "\ufeffbyte order mark",
    # Contractions, quotes, dashes: phones write the curly ones.
    "it's they're we'll I'd don't I've I'm",
    "IT'S THEY'RE WE'LL I'D DON'T I'VE I'M",
    "it\u2019s they\u2019re \u201cquoted\u201d \u2018words\u2019",
    "rock 'n' roll, '90s o'clock d'Artagnan 'tis",
    "en\u2013dash em\u2014dash ellipsis\u2026 bullet\u2022 minus\u22125",
    # Punctuation.
    "punctuation!? (all) {of} [it] <tags> #1 & 50% $5 ~ `x` \\ / | ^ @ + = * \" ' : ; . ,",
    "!!!???...---___***",
    "snake_case and kebab-case, CamelCase.py",
    "e-mail me@example.org or see https://example.org/a?b=c&d=e#f",
    "C++ C# .NET node.js A/B 1:1 50/50",
    "{a, photo} of_a [big] (dog).",
    # Numbers.
    "25,000 3rd 1.5 1/2 3.14e-10 0x7F 2024-01-31 12:30",
    "\u00bd cup, x\u00b2, \u2167 kings, \u0661\u0662\u0663, \u2460",
    "1234567890",
    # Accents and scripts.
    "Été à la plage, garçon naïf, cœur",
    "e\u0301te\u0301 decomposed, A\u030angstrom",
    "Straße GROẞ ÅNGSTRÖM Ærøskøbing Łódź",
    "İstanbul ve Iğdır",
    "ΟΔΥΣΣΕΥΣ στην ΑΘΗΝΑ, Σ",
    "J\u030c caron that composes only in lower case",
    "кошка спит на ДИВАНЕ",
    "猫がソファで寝ている 京都 東京タワー",
    "カタカナ ｶﾀｶﾅ ＦＵＬＬ ｗｉｄｔｈ １２３！",
    "강아지가 뛰어논다",
    "กลางคืนในกรุงเทพ",
    "बिल्ली सोफे पर",
    "قطة على الأريكة",
    "חתול על הספה",
    "Việt Nam phở bò",
    "ﬁ ﬂ ﬃ ligatures, ǆ and ĳ",
    "K kelvin Å angstrom Ω ohm ℃ ℡ ™ ® ©",
    "ª º superscript ⁿ subscript ₂",
    # Emoji.
    "🏯🐈\u200d⬛ 👩🏽\u200d🚀 emoji 🇨🇭",
    "❤️ ☀ ✈️ ⭐️ 1️⃣",
    "cat 😺😺😺 dog",
    "¯\\_(ツ)_/¯ :-) ;) <3",
    # HTML.
    "salt &amp; pepper",
    "salt &amp;amp; pepper",
    "salt &amp;amp;amp;amp; pepper",
    "<i>salt &amp;amp; pepper</i>",
    "&lt;b&gt;bold&lt;/b&gt; &quot;text&quot; &#39;s &#x1F600;",
    "<b>salt &amp; pepper</b> it&#39;s",
    "caf&eacute; 5&nbsp;km &hellip; &notanentity; &#0; &#xD800;",
    "a < b &amp;&amp; e&#769;",
    "AT&T R&D Q&A",
    # Broken encodings.
    "CafÃ© Ã  Paris",
    "schÃ¶ne GrÃ¼ÃŸe â€œquotedâ€\u009d itâ€™s",
    "L&AMP;AMP;ATILDE;&AMP;AMP;SUP3;PEZ",
    "replacement \ufffd character",
    # Long words and texts, and around the limit of 77.
    "x" * 500,
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "asdfghjklqwertyuiop zxcvbnm",
    "a man riding a bicycle through the rain at night " * 40,
    " ".join(["cat"] * 74),
    " ".join(["cat"] * 75),
    " ".join(["cat"] * 76),
    "🏯" * 60,
    # Captions.
    "an aerial view of a city at night",
    "close-up of a red rose with dew drops, bokeh, f/1.8, 85mm",
    "a black-and-white photograph of Albert Einstein (1947)",
    "New York City's Times Square on New Year's Eve",
    "itap of the Eiffel Tower",
    "Pokémon card: Pikachu, 1st edition",
    "a bad photo of a {}.",
    "person wearing T-shirt & blue jeans @ Coachella",
    "IMG_20240131_123000.jpg",
]
SPECIAL_TEXTS = [
    "a <|startoftext|> b",
    "a <|endoftext|> b",
    "a <start_of_text> b",
    "a <END_OF_TEXT> b",
]
"""Texts that spell out tokens, which open_clip and Hugging Face's tokenizer write differently."""


def smooth(width: int, height: int) -> np.ndarray:
    """A gradient in each channel, uint8 [H, W, 3]."""
    x = np.arange(width)[None, :] * 255 // max(1, width - 1)
    y = np.arange(height)[:, None] * 255 // max(1, height - 1)
    return np.stack([x + 0 * y, (x + y) // 2, 255 - y + 0 * x], 2).astype(np.uint8)


def rough(width: int, height: int) -> np.ndarray:
    """Noise in blocks over a pattern with hard edges."""
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    channels = []
    for channel in range(3):
        mixed = (x // 5 * 73856093) ^ (y // 3 * 19349663) ^ np.uint32(83492791 * (channel + 1))
        noise = (mixed * np.uint32(2654435761) >> np.uint32(24)) & 255
        edges = ((x * (channel + 2) + y * 3) // 17 % 2) * 255
        channels.append(np.where((x + y) // 40 % 2 == 0, noise, edges))
    return np.stack(channels, 2).astype(np.uint8)


def opaque() -> dict[str, Image.Image]:
    """Opaque images, which are prepared the same way by every rule."""
    made = {
        "photo": rough(640, 427),
        "upright": rough(333, 500),
        "fits": rough(224, 224),
        "one wider": smooth(225, 224),
        "one taller": rough(224, 225),
        "odd": rough(301, 203),
        "tall": smooth(91, 1000),
        "wide": rough(1200, 90),
        "tiny": rough(17, 9),
        "one pixel": rough(1, 1),
        "large": smooth(1601, 1203),
        "line": rough(300, 1),
    }
    images = {name: Image.fromarray(pixels) for name, pixels in made.items()}
    images["grey"] = Image.fromarray(rough(301, 203)[:, :, 0])
    images["opaque alpha"] = with_alpha(rough(259, 311), np.full((311, 259), 255, np.uint8))
    return images


def indexed() -> dict[str, Image.Image]:
    """Images with a palette, which Pillow resizes to the nearest pixel only."""
    levels = rough(260, 190)[:, :, 0] // 64
    palette = Image.fromarray(levels)
    palette.putpalette([0, 30, 60, 250, 120, 10, 20, 200, 90, 255, 255, 255])
    bits = Image.fromarray(np.where(rough(190, 260)[:, :, 1] > 127, 255, 0).astype(np.uint8))
    return {"palette": palette, "two colours": bits.convert("1", dither=Image.Dither.NONE)}


def transparent() -> dict[str, Image.Image]:
    """Images with transparency."""
    alpha = smooth(257, 300)[:, :, 0]
    grey = Image.merge(
        "LA", [Image.fromarray(rough(150, 211)[:, :, channel]) for channel in (0, 1)]
    )
    return {"alpha": with_alpha(rough(257, 300), alpha), "grey alpha": grey}


def with_alpha(pixels: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, alpha]))


def on_white(image: Image.Image) -> Image.Image:
    """The image composited on white."""
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")


def reference_images() -> dict[str, Image.Image]:
    """All images that open_clip prepares, by the name of its result."""
    found = dict(opaque())
    for name, image in indexed().items():
        found |= {name: image.convert("RGB"), f"{name}, raw": image}
    for name, image in transparent().items():
        found |= {name: on_white(image), f"{name}, raw": image}
    return found


def kept(pixels: np.ndarray) -> np.ndarray:
    """The rows and columns of prepared pixels that are compared, in one array [N, 3]."""
    return np.concatenate([pixels[::STEP].reshape(-1, 3), pixels[:, ::STEP].reshape(-1, 3)])
