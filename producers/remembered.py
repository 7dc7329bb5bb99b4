"""Remembers over restarts which objects of a bucket were found to be no pictures.

Only to ask the bucket less: without the file, or with an old one, they are asked for once more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from adapters.sources import Source
from producers.passed import Look, Passed, Reason

logger = logging.getLogger(__name__)

MOST: Final = 200_000
"""So many are remembered."""
RULE: Final = 1
"""Raised when it is told in another way what a picture is: what was found before is asked anew."""


class Remembered:
    """The file of one source, beside the watcher's status. Methods block."""

    def __init__(self, status_file: Path, source: Source) -> None:
        name = f"{status_file.stem}-no-pictures-{source.name}.json"
        self._path = status_file.with_name(name)
        self._url = source.url
        self._version: int | None = None

    def load(self, passed: Passed) -> None:
        """What is not there any more is forgotten by the first comparison."""
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            if told["url"] == self._url and told.get("rule") == RULE:
                passed.looked(
                    Look(path, Reason.NOT_A_PICTURE, tuple(facts))
                    for path, facts in told["objects"].items()
                )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("cannot read %s, going on without it: %r", self._path, error)
        self._version = passed.version

    def save(self, passed: Passed) -> None:
        """Replace the file, if something has changed."""
        if passed.version == self._version:
            return
        told = {"url": self._url, "rule": RULE, "objects": dict(islice(_lasting(passed), MOST))}
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            draft.write_text(json.dumps(told), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            logger.warning("cannot write %s, going on without it: %s", self._path, error)
        self._version = passed.version


def _lasting(passed: Passed) -> Iterator[tuple[str, Hashable]]:
    """Those of which something tells whether they are still the same."""
    return ((path, facts) for path, facts in passed.no_pictures() if facts is not None)
