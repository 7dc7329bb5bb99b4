"""WordNet's nouns: words, glosses and the kinds they are kinds of.

Format of ``data.noun``: wndb(5WN). A synset is named by its byte offset, which differs
between WordNet releases; ImageNet's identifiers are offsets of release 3.0.
"""

from dataclasses import dataclass
from pathlib import Path

HYPERNYM = frozenset({"@", "@i"})  # kind of; instance of


@dataclass(frozen=True)
class Synset:
    """One meaning: its words (most usual first), its gloss, offsets of what it is a kind of."""

    words: tuple[str, ...]
    gloss: str
    parents: tuple[int, ...]


def read_nouns(path: Path) -> dict[int, Synset]:
    """Returns the noun synsets of a ``data.noun`` file by offset."""
    nouns = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("  "):  # the licence, at the top of the file
                continue
            fields, _, gloss = line.partition("|")
            offset, synset = _synset(fields.split(), gloss.strip())
            nouns[offset] = synset
    return nouns


def _synset(fields: list[str], gloss: str) -> tuple[int, Synset]:
    count = int(fields[3], 16)
    words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    pointers = fields[4 + 2 * count + 1 :]  # after their count: symbol, offset, part, words
    parents = tuple(
        int(target)
        for symbol, target in zip(pointers[0::4], pointers[1::4], strict=False)
        if symbol in HYPERNYM
    )
    return int(fields[0]), Synset(words, gloss, parents)


def ancestors(nouns: dict[int, Synset], offset: int) -> frozenset[int]:
    """Returns the synset itself and everything it is, directly or not, a kind of."""
    found: set[int] = set()
    waiting = [offset]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(nouns[current].parents)
    return frozenset(found)


def descendant_counts(nouns: dict[int, Synset]) -> dict[int, int]:
    """Returns for each synset how many others are, directly or not, kinds of it."""
    counts = dict.fromkeys(nouns, -1)  # a synset is among its own ancestors: start below zero
    for offset in nouns:
        for ancestor in ancestors(nouns, offset):
            counts[ancestor] += 1
    return counts
