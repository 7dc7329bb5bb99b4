"""Skipped files are reported as far as they are known, and forgotten with their files."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from adapters.log.fake import FakeEventLog
from adapters.name_forms import forms
from adapters.watcher_status import skipped_counts
from imaging.sources.source import Source
from producers.bucket.non_images import NonImageCache
from producers.skipped import Examined, SkippedFiles, SkipReason
from tests.formats.test_content_buckets import bucket as bucket
from tests.formats.test_content_local import JPEG, skipped
from tests.unit.producers.test_sources import running
from tests.unit.producers.test_watcher import eventually, letters, view, watching


def status(**changes: Any) -> dict[str, Any]:
    """What a watcher writes that has compared everything just now."""
    status = {"written_at": "now", "last_reconcile": "now", "skipped": {"ignored": 1}}
    return {**status, "sources": {}, **changes}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (status(), {"ignored": 1}),
        (status(sources={"a": status()}), {"ignored": 2}),
        (status(last_reconcile=None), None),
        (status(sources={"a": status(last_reconcile=None)}), None),
        (status(written_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat()), None),
        (status(skipped=3), None),
        (status(sources=None), None),
        (status(sources={"a": 3}), None),
        ([], None),
        (None, None),
    ],
)
def test_counts_of_an_unreadable_status_are_not_reported(
    tmp_path: Path, written: Any, expected: dict[str, int] | None
) -> None:
    text = json.dumps(written).replace('"now"', json.dumps(datetime.now(UTC).isoformat()))
    (tmp_path / "watcher.json").write_text(text)
    assert skipped_counts(tmp_path / "watcher.json") == expected


async def test_a_missing_folder_does_not_count_as_unreadable(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if isinstance(path, str) and path.endswith("/shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (root / "sub/shut").mkdir(parents=True)
    async with watching(root, log) as watcher:
        await eventually(skipped(watcher, unreadable=["sub/shut/"]))
        (root / "sub/shut").rename(root / "sub/open")
        await eventually(skipped(watcher), 10)


async def test_an_invalid_object_name_does_not_stop_a_bucket(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    bucket.pipe({"/b/x/caf\udce9.jpg": JPEG, "/b/x/a.jpg": JPEG})
    async with running(root, log) as sources:

        async def right() -> bool:
            skipped = sources.others["cloud"].status.skipped.names()
            return (set(await view(log)), skipped) == (
                {"cloud/a.jpg"},
                {"name_not_utf8": ["caf\udce9.jpg"]},
            )

        await eventually(right, 10)
    assert [each.error_class for each in await letters(log)] == ["InvalidName"]


def test_skipped_names_may_have_any_characters() -> None:
    skipped = SkippedFiles()
    named = {SkipReason.IGNORED: ["a\0b", "c/", "\0d", "\n"]}
    skipped.record_folder("", named, ())
    assert skipped.counts() == {"ignored": 4}
    assert skipped.names() == {"ignored": named[SkipReason.IGNORED]}


def test_an_object_without_facts_does_not_invalidate_the_cache(tmp_path: Path) -> None:
    before, after = SkippedFiles(), SkippedFiles()
    before.record(
        [Examined("a", SkipReason.NOT_AN_IMAGE), Examined("b", SkipReason.NOT_AN_IMAGE, (1, 2))]
    )
    source = Source("cloud", "memory://b/x")
    NonImageCache(tmp_path / "watcher.json", source).save(before)
    NonImageCache(tmp_path / "watcher.json", source).load(after)
    assert list(after.non_images()) == [("b", (1, 2))]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_vietnamese_in_windows_normalization_is_found(form: Any) -> None:
    stored = "Tiê\u0301ng/Viê\u0323t ơ\u0309.jpg"
    assert stored not in (normalize("NFC", stored), normalize("NFD", stored))
    assert stored in forms(normalize(form, stored))
    assert normalize(form, stored) in forms(stored)
