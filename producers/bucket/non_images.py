"""Remembers across restarts which objects of a bucket are not images.

A cache that saves requests: without the file, or with an old one, the objects are read again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from imaging.sources.source import Source
from producers.skipped import Examined, SkippedFiles, SkipReason

logger = logging.getLogger(__name__)

MAX_OBJECTS: Final = 200_000
"""Number of objects that are remembered."""
RULE_VERSION: Final = 1
"""To be incremented when images are recognized differently, so that objects are read again."""


class NonImageCache:
    """The cache file of one source, beside the watcher's status file. Methods block."""

    def __init__(self, status_file: Path, source: Source) -> None:
        name = f"{status_file.stem}-no-pictures-{source.name}.json"
        self._path = status_file.with_name(name)
        self._url = source.url
        self._version: int | None = None

    def load(self, skipped: SkippedFiles) -> None:
        """Read the file. The first comparison forgets objects that no longer exist."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["url"] == self._url and content.get("rule") == RULE_VERSION:
                skipped.record(
                    Examined(path, SkipReason.NOT_AN_IMAGE, tuple(facts))
                    for path, facts in content["objects"].items()
                )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("cannot read %s, continuing without it: %r", self._path, error)
        self._version = skipped.version

    def save(self, skipped: SkippedFiles) -> None:
        """Replace the file if something has changed."""
        if skipped.version == self._version:
            return
        content = {
            "url": self._url,
            "rule": RULE_VERSION,
            "objects": dict(islice(_recognizable(skipped), MAX_OBJECTS)),
        }
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            draft.write_text(json.dumps(content), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            logger.warning("cannot write %s, continuing without it: %s", self._path, error)
        self._version = skipped.version


def _recognizable(skipped: SkippedFiles) -> Iterator[tuple[str, Hashable]]:
    """The objects that a later listing can show to be unchanged."""
    return ((path, facts) for path, facts in skipped.non_images() if facts is not None)
