"""Examining the next batch while one is decided does not change what is published."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters import helper_processes as helpers
from adapters.errors import Unavailable
from adapters.helper_processes import HelperPool
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message, Position
from imaging.sources.mounts import Mounts
from producers.events import EventFactory
from producers.folder import pipeline as publish
from producers.folder.examination import ParallelExaminer
from producers.folder.hashing import Candidate, Examiner, Finding, Present
from producers.folder.mount_points import MountPoints
from producers.folder.pipeline import ChangePipeline
from producers.folder.settling import Settling
from producers.guard import RemovalGuards
from producers.known_image import UNKNOWN, FileStat, KnownImage
from producers.log.known_images import KnownImages
from producers.log.known_images_loader import load
from producers.log.writer import ChangeWriter
from producers.rules import Rules
from schemas.topics import IMAGES, Topic

A, B = b"a" * 32, b"b" * 32


class Scripted:
    """An examiner whose results are set by the test."""

    def __init__(self) -> None:
        self.looks: list[tuple[list[str], asyncio.Future[bytes]]] = []
        self._announcer = EventFactory("", "file:///pictures/")

    async def examine(self, candidates: Sequence[Candidate], rules: Rules) -> list[Finding]:
        del rules
        end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.looks.append(([c.path for c in candidates], end))
        sha256 = await end
        stat = FileStat(1, 1)
        return [
            Present(c.path, sha256, stat)
            if c.known is not None and c.known.sha256 == sha256
            else Present(c.path, sha256, stat, self._announcer.addition(c.path, sha256, stat))
            for c in candidates
        ]

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.looks) < count:
                await asyncio.sleep(0.001)


class Bench:
    def __init__(self, state: KnownImages) -> None:
        self.log = FakeEventLog()
        self.looks = Scripted()
        self.settling = Settling(0.0)
        self.pipeline = ChangePipeline(
            state=state,
            rules=Rules,
            examiner=self.looks,  # type: ignore[arg-type]
            writer=ChangeWriter(self.log, self._refused),
            refusals=None,  # type: ignore[arg-type]
            guard=RemovalGuards(1.0, allow=True, mounts=Mounts),
            settling=self.settling,
            id_prefix="",
            removable=self._yes,
            mounts=MountPoints(Mounts),
        )

    async def _refused(self, key: str, reason: str) -> None:
        raise AssertionError((key, reason))

    async def _yes(self) -> bool:
        return True

    async def published(self) -> list[str]:
        return [(r.key or b"").decode() async for r in self.log.read_all(IMAGES)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "BATCH", 2)


async def test_two_batches_are_examined_at_once(small_batches: None) -> None:
    bench = Bench(KnownImages())
    work = asyncio.create_task(bench.pipeline.run())
    await bench.pipeline.submit(["a", "b", "c", "d", "e"])
    await bench.looks.begun(2)
    assert [ids for ids, _ in bench.looks.looks] == [["a", "b"], ["c", "d"]]
    bench.looks.looks[1][1].set_result(A)  # the second is done first, and waits for its turn
    await asyncio.sleep(0.01)
    assert await bench.published() == []
    bench.looks.looks[0][1].set_result(A)
    await bench.looks.begun(3)
    bench.looks.looks[2][1].set_result(A)
    await bench.pipeline.drain()
    assert sorted(await bench.published()) == ["a", "b", "c", "d", "e"]
    work.cancel()


async def test_no_image_is_in_two_batches_at_once(small_batches: None) -> None:
    """It was A, is B at the first look, and A again at the second: B and A are published."""
    state = KnownImages()
    state.put("x", KnownImage(A, FileStat(0, 0)))
    bench = Bench(state)
    work = asyncio.create_task(bench.pipeline.run())
    await bench.pipeline.submit(["x", "w", "y", "x"])
    await bench.looks.begun(2)
    bench.pipeline.touched("x")
    assert [ids for ids, _ in bench.looks.looks] == [["x", "w"], ["y"]]
    bench.looks.looks[0][1].set_result(B)

    async def see_a() -> None:
        number = 1
        while True:
            await bench.looks.begun(number + 1)
            bench.looks.looks[number][1].set_result(A)
            number += 1

    seeing = asyncio.create_task(see_a())
    await asyncio.wait_for(bench.pipeline.drain(), 60)
    async with asyncio.timeout(60):
        while len(bench.settling):
            await asyncio.sleep(0.001)
    await asyncio.wait_for(bench.pipeline.drain(), 60)
    assert state.get("x") == KnownImage(A, FileStat(1, 1))
    assert [key for key in await bench.published() if key == "x"] == ["x", "x"]
    seeing.cancel()
    work.cancel()


@pytest.mark.slow
async def test_a_folder_long_enough_for_helpers(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(publish, "BATCH", 300)
    root = tmp_path / "images"
    root.mkdir()
    names = [f"{n}.jpg" for n in range(1500)]
    for name in names:
        (root / name).write_bytes(name.encode())
        os.utime(root / name, (1e9, 1e9))
    state, used = KnownImages(), HelperPool(2)
    bench = Bench(state)
    examiner = Examiner(root, EventFactory("", "file:///x/"), follow=True, max_bytes=100)
    examination = ParallelExaminer(examiner, used)
    monkeypatch.setattr(bench.pipeline, "_examiner", examination)
    work = asyncio.create_task(bench.pipeline.run())
    try:
        await bench.pipeline.submit(names)
        await bench.pipeline.drain()
        assert sorted(await bench.published()) == sorted(names)
        assert used._pool is not None or helpers.CORES == 1
        # One that dies costs nothing but time.
        for process in (used._pool._processes if used._pool else {}).values():
            process.kill()
        await bench.pipeline.submit(names)
        await bench.pipeline.drain()
        assert len(await bench.published()) == len(names)
        assert bench.pipeline.counters.unchanged == len(names)
    finally:
        work.cancel()
        used.close()


class TestLoading:
    async def test_the_topic_is_loaded_into_the_known_images(self) -> None:
        log = FakeEventLog()
        event_factory = EventFactory("", "file:///a/")
        messages = [
            Message(f"{n}.jpg", event_factory.addition(f"{n}.jpg", A, FileStat(n, n)))
            for n in range(900)
        ]
        messages += [Message(f"{n}.jpg", None) for n in range(0, 900, 3)]
        messages += [Message(f"{n}.jpg", b"{nonsense") for n in range(1, 900, 100)]
        messages += [
            Message(
                f"s/{n}.jpg", EventFactory("s/", "s3://b/").addition(f"{n}.jpg", B, FileStat(1, 1))
            )
            for n in range(50)
        ]
        await log.publish(IMAGES, messages)
        known = await load(log, {"": "file:///a/", "s/": "s3://other/"})
        assert len(known[""]) == 600 + 3  # of the unreadable ones, three had been removed
        assert known[""].get("2.jpg") == KnownImage(A, FileStat(2, 2))
        assert known[""].get("3.jpg") is None
        assert known[""].get("101.jpg") == UNKNOWN
        assert len(known["s/"]) == 50
        assert known["s/"].get("7.jpg") == KnownImage(B, FileStat(1, 1), uri_is_current=False)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"schema_version": "2.0"}, "schema version 2.0 is not supported"),
            ({"image_id": "other.jpg"}, "the event names 'other.jpg'"),
            ({"sha256": "A" * 64}, "sha256: String should match pattern"),
            ({"size_bytes": -1}, "size_bytes: Input should be greater than"),
            ({"modified_at": "2026-01-05T00:00:00"}, "modified_at: Input should have timezone"),
            ({"uri": ""}, "uri: String should have at least 1 character"),
        ],
    )
    async def test_unusable_events_are_reported_and_published_again(
        self, change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = FakeEventLog()
        event = json.loads(EventFactory("", "file:///a/").addition("x.jpg", A, FileStat(1, 1)))
        value = json.dumps({**event, **change}).encode()
        await log.publish(IMAGES, [Message("x.jpg", value), Message("y.jpg", None)])
        known = await load(log, {"": "file:///a/"})
        assert known[""].get("x.jpg") == UNKNOWN
        assert reason in caplog.text

    async def test_a_log_that_goes_away_in_the_middle(self) -> None:
        class Failing(FakeEventLog):
            async def read_all(self, topic: Topic, start: Any = None) -> Any:
                async for record in super().read_all(topic, start):
                    yield record
                raise Unavailable("gone")

        log = Failing()
        event_factory = EventFactory("", "file:///a/")
        await log.publish(
            IMAGES,
            [Message(f"{n}", event_factory.addition(f"{n}", A, FileStat(n, n))) for n in range(9)],
        )
        with pytest.raises(Unavailable):
            await load(log, {"": "file:///a/"})


async def test_an_event_published_encoded_is_read_back() -> None:
    log = FakeEventLog()
    value = EventFactory("", "file:///a/").addition("x.jpg", A, FileStat(1, 1))
    (position,) = await log.publish(IMAGES, [Message("x.jpg", value)])
    assert isinstance(position, Position)
    (record,) = [r async for r in log.read_all(IMAGES)]
    assert record.value == value
