"""`ImageFilter` in Weaviate's terms.

The filter applies within the vector search (Weaviate traverses its graph with an allow list), so a
filtered search returns as many images as an unfiltered one, if that many match.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn

from adapters.index.port import Between, ImageFilter
from adapters.index.storable import EARLIEST, LATEST
from adapters.name_forms import forms

SMALLEST, LARGEST = -(2**63), 2**63 - 1
LOWEST_LATITUDE: Final = -90.0

Condition = FilterReturn
"""A filter in Weaviate's terms."""


def conditions(where: ImageFilter) -> Condition | None:
    """The filter; None if it has no condition."""
    parts = _folder(where.folder)
    for name, wanted in where.by_property().items():
        if isinstance(wanted, Between):
            parts.extend(_between(name, wanted))
        elif isinstance(wanted, tuple):
            parts.append(Filter.by_property(name).contains_any(list(wanted)))
        else:
            parts.append(Filter.by_property(name).equal(wanted))
    if where.has_gps is not None:
        # These collections have no index of null values, so this compares latitudes.
        located = Filter.by_property("latitude").greater_or_equal(LOWEST_LATITUDE)
        parts.append(located if where.has_gps else Filter.not_(located))
    if not parts:
        return None
    return Filter.all_of(parts)


def _folder(folder: str) -> list[FilterReturn]:
    """In this folder or below it, in every Unicode form of its name."""
    if not folder:
        return []
    ranges = [_starts_with(form) for form in forms(folder)]
    return [ranges[0] if len(ranges) == 1 else Filter.any_of(ranges)]


def _starts_with(folder: str) -> FilterReturn:
    """A range of texts: those that start with `a/` lie between `a/` and `a0`, without `a0`.

    `like` would treat `*` and `?` in a folder's name as wildcards.
    """
    after = folder[:-1] + chr(ord(folder[-1]) + 1)
    return Filter.all_of(
        [
            Filter.by_property("folder").greater_or_equal(folder),
            Filter.by_property("folder").less_than(after),
        ]
    )


def _between(name: str, range_: Between[Any]) -> list[FilterReturn]:
    """A bound outside of the storable range is replaced by the end of that range."""
    parts = []
    if range_.low is not None:
        parts.append(Filter.by_property(name).greater_or_equal(_storable_bound(range_.low)))
    if range_.high is not None:
        parts.append(Filter.by_property(name).less_or_equal(_storable_bound(range_.high)))
    return parts


def _storable_bound(bound: int | datetime) -> int | datetime:
    if isinstance(bound, datetime):
        return min(max(bound, EARLIEST), LATEST)
    return min(max(bound, SMALLEST), LARGEST)
