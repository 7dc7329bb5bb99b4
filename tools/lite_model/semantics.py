"""The table that turns class probabilities into a text embedding.

ConSE (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings",
ICLR 2014), widened to WordNet's hypernyms: a picture is the probability-weighted mean of the
embeddings of the classes seen in it and of everything those classes are kinds of.

Information content after Resnik (1995), with the 1,000 classes as the corpus, times the
intrinsic information content of Seco, Veale and Hayes (2004), so that 'dog', which covers
an eighth of the classes, keeps some weight and 'entity' has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.lite_model import wordnet

Floats = npt.NDArray[np.float64]
Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Semantics:
    """What the two graphs need, for D-dimensional text embeddings and K classes.

    Attributes:
        mean: [D], subtracted from every text embedding.
        whiten: [D, D] symmetric, multiplied from the right.
        table: [K, D], a row for each class; a picture is unit(probabilities @ table).
        nodes: how many synsets took part.
    """

    mean: npt.NDArray[np.float32]
    whiten: npt.NDArray[np.float32]
    table: npt.NDArray[np.float32]
    nodes: int


def unit(rows: Floats) -> Floats:
    """Scales each row of [N, D] to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def texts(synset: wordnet.Synset) -> tuple[str, str, str]:
    """Returns the three texts whose embeddings, added up, stand for a synset."""
    words = ", ".join(synset.words)
    definition = synset.gloss.split(";")[0].strip()
    return words, f"{words}: {definition}", f"a photo of a {synset.words[0]}"


def build(nouns: dict[int, wordnet.Synset], classes: Sequence[int], encode: Encode) -> Semantics:
    """Builds the table for classes given as synset offsets, in the classifier's order."""
    above = [wordnet.ancestors(nouns, offset) for offset in classes]
    nodes = sorted(frozenset().union(*above))
    column = {offset: index for index, offset in enumerate(nodes)}
    member = np.zeros((len(classes), len(nodes)))
    for row, offsets in enumerate(above):
        member[row, [column[offset] for offset in offsets]] = 1.0

    vectors = _node_vectors([nouns[offset] for offset in nodes], encode)
    mean = vectors.mean(axis=0)
    whiten = half_whitening(vectors - mean)
    centred = unit((vectors - mean) @ whiten)
    table = (member * node_weights(nouns, nodes, member)) @ centred
    return Semantics(
        mean.astype(np.float32), whiten.astype(np.float32), table.astype(np.float32), len(nodes)
    )


def node_weights(nouns: dict[int, wordnet.Synset], nodes: Sequence[int], member: Floats) -> Floats:
    """Returns [nodes]: 1 for a class without kinds below it, 0 for what everything is."""
    classes = member.shape[0]
    seen = -np.log(member.sum(axis=0) / classes) / np.log(classes)
    below = wordnet.descendant_counts(nouns)
    counts = np.array([below[offset] for offset in nodes], dtype=np.float64)
    intrinsic = 1.0 - np.log(counts + 1.0) / np.log(len(nouns))
    return np.asarray(seen * intrinsic)


def half_whitening(centred: Floats) -> Floats:
    """Returns [D, D]: V diag((s / s1) ** -1/2) V' of the singular value decomposition.

    Full whitening (power -1) would blow up the directions in which synsets hardly differ.
    """
    _, singular, v_transposed = np.linalg.svd(centred, full_matrices=False)
    scale = (singular / singular[0]) ** -0.5
    return np.asarray((v_transposed.T * scale) @ v_transposed)


def _node_vectors(synsets: Sequence[wordnet.Synset], encode: Encode) -> Floats:
    triples = [texts(synset) for synset in synsets]
    parts = [encode([triple[i] for triple in triples]).astype(np.float64) for i in range(3)]
    return unit(parts[0] + parts[1] + parts[2])
