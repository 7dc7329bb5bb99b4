"""A scan sees the results of examinations that are in flight when it begins."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adapters.log.fake import FakeEventLog
from tests.unit.producers.test_watcher import eventually, history, shows, watching


@pytest.mark.slow
async def test_an_image_deleted_while_notifications_are_dropped_is_removed(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was examined before the scan, and the result arrives only during the scan."""
    seen, compared = asyncio.Event(), asyncio.Event()
    async with watching(root, log) as watcher:
        examination, reconciler = watcher._pipeline._examiner, watcher._reconciler
        examine, compare = examination.examine, reconciler.compare

        async def looks_slowly(*arguments: Any) -> Any:
            findings = await examine(*arguments)
            seen.set()
            await asyncio.wait([asyncio.create_task(compared.wait())], timeout=1.0)
            return findings

        async def compares(*arguments: Any) -> Any:
            difference = await compare(*arguments)
            compared.set()
            return difference

        monkeypatch.setattr(examination, "examine", looks_slowly)
        monkeypatch.setattr(reconciler, "compare", compares)
        (root / "a.jpg").write_bytes(b"one")
        async with asyncio.timeout(20):
            await seen.wait()
        mailbox = watcher._mailbox
        assert mailbox is not None
        monkeypatch.setattr(mailbox, "dispatch", lambda _: None)
        (root / "a.jpg").unlink()
        mailbox.overflowed()

        async def reported() -> bool:
            return [image_id for image_id, _ in await history(log)] == ["a.jpg", "a.jpg"]

        await eventually(reported, seconds=10)
        await shows(log, {})
