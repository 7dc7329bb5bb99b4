"""Changes the JSON document inside an input, where changing bytes would only break its syntax."""

from __future__ import annotations

import json
import random
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    1e308,
    2**63,
    -(2**64),
    float("nan"),
    float("inf"),
    "",
    "\0",
    "\ud800",
    "e\u0301",
    "x" * 3000,
    "1677-09-21T00:12:43Z",
    "9999-12-31T23:59:59.999999999+23:59",
    "2024-02-30T00:00:00Z",
    [],
    {},
    [[]],
    {"": None},
)


def mutate(data: bytes, separator: bytes, random_numbers: random.Random) -> bytes | None:
    """The same input with one value of the document behind `separator` changed; None if none is."""
    head, found, text = data.partition(separator)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    document = _changed(document, random_numbers)
    return head + found + json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with something in it replaced, removed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        dice = chance.random()
        if dice < 0.1:
            return {key: part for key, part in value.items() if key != name}
        if dice < 0.2:
            return {**value, name + chance.choice(("", "x", "\0")): chance.choice(ODD)}
        return {**value, name: _changed(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:index] + value[index:] * 2
        return [*value[:index], _changed(value[index], chance), *value[index + 1 :]]
    if isinstance(value, str) and value and chance.random() < 0.5:
        index = chance.randrange(len(value))
        return (
            value[:index] + chance.choice(("", "\0", "9", "%", "\udc80", "😀")) + value[index + 1 :]
        )
    if isinstance(value, int | float) and chance.random() < 0.5:
        return value * chance.choice((-1, 0, 10, 0.5, 1e30)) + chance.choice((0, 1))
    return chance.choice(ODD)
