"""Confidence intervals of medians."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

DRAWS = 5000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, by bootstrap."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(DRAWS))
    return medians[DRAWS // 40], medians[-DRAWS // 40 - 1]
