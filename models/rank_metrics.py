"""Metrics that compare two rankings, or a ranking with ratings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

PERSISTENCE = 0.9
"""Probability that a user goes on to the next rank; 0.9 puts 86 % of the weight on the first ten.
"""


def overlap(left: Sequence[str], right: Sequence[str], depth: int = 10) -> float:
    """Share of the first `depth` items that both rankings contain, 0 to 1; 1 if both are empty.

    Divided by the length of the longer one (at most `depth`), so that short answers can reach 1.
    """
    first, second = set(left[:depth]), set(right[:depth])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else 1.0


def rank_biased_overlap(
    left: Sequence[str], right: Sequence[str], persistence: float = PERSISTENCE
) -> float:
    """Extrapolated rank-biased overlap of two rankings without ties, 0 to 1.

    RBO_ext of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS
    28(4), 2010, equation 32: with X_d the overlap at depth d, s and l the lengths of the shorter
    and the longer ranking, and p the persistence,

        (1-p)/p * ( sum_{d=1..l} X_d/d p^d  +  sum_{d=s+1..l} X_s (d-s)/(s d) p^d )
        + ( (X_l - X_s)/l + X_s/s ) p^l

    Raises:
        ValueError: the persistence is not between 0 and 1.
    """
    if not 0 < persistence < 1:
        raise ValueError("the persistence must be between 0 and 1")
    shorter, longer = sorted((left, right), key=len)
    s, length = len(shorter), len(longer)
    if s == 0:
        return 1.0 if length == 0 else 0.0
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    common, at_s, total = 0, 0, 0.0
    for depth in range(1, length + 1):
        item = longer[depth - 1]
        seen_long.add(item)
        common += item in seen_short
        if depth <= s:
            other = shorter[depth - 1]
            seen_short.add(other)
            common += other in seen_long
        if depth == s:
            at_s = common
        total += common / depth * persistence**depth
        if depth > s:
            total += at_s * (depth - s) / (s * depth) * persistence**depth
    rest = ((common - at_s) / length + at_s / s) * persistence**length
    return (1 - persistence) / persistence * total + rest


def ndcg(ranking: Sequence[str], gains: Mapping[str, float], depth: int = 10) -> float | None:
    """Normalized discounted cumulative gain at `depth`, 0 to 1; None if no image has a gain.

    DCG = sum of gain_i / log2(i + 1) over ranks i from 1 (Järvelin and Kekäläinen, "Cumulated
    gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002), divided by that of the best
    possible order. Images without a gain count as 0.
    """
    best = _dcg(sorted(gains.values(), reverse=True)[:depth])
    if best <= 0:
        return None
    return _dcg([gains.get(name, 0.0) for name in ranking[:depth]]) / best


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Minimum, quartiles and maximum, by linear interpolation; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)

    def at(share: float) -> float:
        index = share * (len(ordered) - 1)
        low = math.floor(index)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (index - low)

    return {
        name: at(q)
        for name, q in (("min", 0), ("q1", 0.25), ("median", 0.5), ("q3", 0.75), ("max", 1))
    }
