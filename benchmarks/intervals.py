"""How sure a median is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

DRAWS = 5000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """What holds the median with 95 %, by drawing from the values again and again."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(DRAWS))
    return medians[DRAWS // 40], medians[-DRAWS // 40 - 1]
