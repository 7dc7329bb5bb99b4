"""Searches move only to a collection that holds what the log holds."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.bootstrap import Connections
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.dead_letter import dead_letter
from adapters.log.fake import FakeEventLog, FakeGroupAdmin
from adapters.log.port import GroupAdmin, GroupProgress, Message, Position
from adapters.naming import collection_name
from adapters.provision import newest_activation, recovered_collection
from cli import models as commands
from cli.models_completeness import check_complete
from models import switching
from models.errors import SwitchRefused
from models.switching import BackfillProgress, ModelSwitcher
from schemas.events import ImageAdded, ModelStep
from schemas.topics import IMAGES, IMAGES_DLQ, Topic
from stack.errors import StackError
from stack.install.preparation import Cache
from stack.serving import LocalServing
from stack.settings import StackSettings
from stack.triton_models import model_registry

NOW = datetime(2026, 1, 5, tzinfo=UTC)
EVERYTHING = dict.fromkeys(range(IMAGES.partitions), 10**9)


def sha(number: int, *, version: int = 0) -> str:
    return f"{version:02x}{number:062x}"


def added(number: int, *, version: int = 0) -> Message:
    event = ImageAdded(
        image_id=f"{number}.png",
        uri=f"file:///images/{number}.png",
        sha256=sha(number, version=version),
        size_bytes=9,
        media_type="image/png",
        modified_at=NOW,
        added_at=NOW,
    )
    return Message(event.image_id, event)


def record(number: int, dimension: int, *, version: int = 0) -> ImageRecord:
    vector = [1.0] + [0.0] * (dimension - 1)
    name = f"{number}.png"
    return ImageRecord(
        image_id=name,
        uri=f"file:///{name}",
        sha256=sha(number, version=version),
        media_type="image/png",
        size_bytes=9,
        width=3,
        height=3,
        modified_at=NOW,
        added_at=NOW,
        vector=vector,
    )


class CaughtUp(FakeGroupAdmin):
    """Every group has read everything."""

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        ends = {n: end for n, (_, end) in (await self.log.bounds(topic)).items()}
        return GroupProgress(committed=ends, ends=ends)


class OneMoreEachTime(FakeGroupAdmin):
    """Every group reads a record of five between two measurements."""

    def __init__(self, handled: dict[str, int]) -> None:
        super().__init__()
        self.handled = handled

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        self.handled[group] = self.handled.get(group, 0) + 1
        return GroupProgress(committed={0: self.handled[group]}, ends={0: 5})


@dataclass
class World:
    """A stack on in-memory servers; `lite` answers searches, `next` is to."""

    settings: StackSettings
    log: FakeEventLog = field(default_factory=FakeEventLog)
    index: FakeImageIndex = field(default_factory=FakeImageIndex)
    specs: dict[str, ModelSpec] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)
    groups: GroupAdmin = field(default_factory=FakeGroupAdmin)

    def servers(self) -> Connections:
        return Connections(FakeEmbedder(served=self.specs), self.index, self.log, self.groups)

    def switching(self) -> ModelSwitcher:
        serving = LocalServing(self.settings, Cache(self.settings.cache, print))
        registry = model_registry(self.settings)
        return ModelSwitcher(registry, self.servers(), serving)

    async def publish(self, *numbers: int, version: int = 0) -> None:
        for number in numbers:
            (self.positions[number],) = await self.log.publish(
                IMAGES, [added(number, version=version)]
            )

    async def fill(self, name: str, *numbers: int, version: int = 0) -> Collection:
        collection = await self.index.ensure_collection(self.specs[name])
        records = [record(n, collection.dimension, version=version) for n in numbers]
        await self.index.upsert(collection, records)
        return collection

    async def give_up(self, name: str, *numbers: int) -> None:
        """Dead letters of this model."""
        for number in numbers:
            letter = dead_letter(
                image_id=f"{number}.png",
                error_class="Vanished",
                reason="it is gone",
                attempts=3,
                source_topic=IMAGES.name,
                source_partition=self.positions[number].partition,
                source_offset=self.positions[number].offset,
                model_name=name,
            )
            await self.log.publish(IMAGES_DLQ, [Message(letter.image_id, letter)])

    async def alias(self) -> str | None:
        active = await self.index.active()
        return active.model_name if active else None


@pytest.fixture
async def world(tmp_path: Path, small_spec: ModelSpec) -> World:
    settings = StackSettings(
        state_dir=tmp_path / "state", cache_dir=tmp_path / "cache", model_name="lite"
    )
    lite = model_registry(settings).store().spec("lite")
    world = World(settings, specs={"lite": lite})
    world.specs["next"] = small_spec.model_copy(update={"name": "next"})
    await recovered_collection(world.index, world.log, lite)
    return world


@pytest.fixture
def switches(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The command, without what needs a Triton or a Kafka."""

    @contextlib.asynccontextmanager
    async def connections(_: object) -> AsyncIterator[Connections]:
        yield world.servers()

    async def prepare(_: ModelSwitcher, name: str) -> Collection:
        return await world.index.ensure_collection(world.specs[name])

    monkeypatch.setattr("stack.settings.StackSettings", lambda: world.settings)
    monkeypatch.setattr("adapters.bootstrap.connections", connections)
    monkeypatch.setattr(ModelSwitcher, "prepare", prepare)
    world.groups = CaughtUp(log=world.log)
    monkeypatch.setattr(switching, "POLL_SECONDS", 0.01)
    return world


async def test_a_switch_refuses_a_collection_that_lacks_images(switches: World) -> None:
    await switches.publish(*range(100))
    await switches.fill("lite", *range(100))
    await switches.fill("next", *range(98))
    with pytest.raises(StackError, match=r"2 of 100 pictures .* '98.png', '99.png'"):
        await commands._switch("next", False, {}, 0.01)
    assert await switches.alias() == "lite"
    assert model_registry(switches.settings).read().active == "lite"


async def test_a_switch_accepts_the_given_share_of_missing_images(switches: World) -> None:
    await switches.publish(*range(100))
    await switches.fill("next", *range(50))
    with pytest.raises(StackError):
        await commands._switch("next", False, {}, 0.4)
    await commands._switch("next", False, {}, 1.0)
    assert await switches.alias() == "next"


async def test_a_switch_with_an_empty_log_succeeds(switches: World) -> None:
    await commands._switch("next", False, {}, 0.01)
    assert await switches.alias() == "next"


async def lacks(world: World, most: float = 0.01, handled: Mapping[int, int] = EVERYTHING) -> bool:
    collection = await world.index.ensure_collection(world.specs["next"])
    try:
        await check_complete(world.servers(), collection, handled, most)
    except StackError:
        return True
    return False


async def test_one_percent_may_be_missing(world: World) -> None:
    await world.publish(*range(100))
    await world.fill("next", *range(99))
    assert not await lacks(world)
    assert await lacks(world, 0.0)


async def test_an_image_with_other_content_counts_as_missing(world: World) -> None:
    await world.publish(*range(10), version=1)
    await world.fill("next", *range(10), version=0)
    assert await lacks(world)


async def test_an_image_that_no_model_could_read_is_not_missing(world: World) -> None:
    await world.publish(*range(10))
    await world.fill("lite", *range(5))
    await world.fill("next", *range(5))
    await world.give_up("lite", *range(5, 10))
    await world.give_up("next", *range(5, 10))
    assert not await lacks(world)


async def test_an_image_that_only_the_new_model_rejected_is_missing(world: World) -> None:
    """As when a disk was half there while it was filled."""
    await world.publish(*range(10))
    await world.fill("lite", *range(10))
    await world.fill("next", *range(5))
    await world.give_up("next", *range(5, 10))
    assert await lacks(world)


async def test_an_image_added_during_the_check_is_not_missing(world: World) -> None:
    """Under steady load, a small collection would never be let go to."""
    await world.publish(*range(10))
    await world.fill("next", *range(10))
    handled = {n: end for n, (_, end) in (await world.log.bounds(IMAGES)).items()}
    await world.publish(*range(10, 15))
    assert not await lacks(world, handled=handled)
    assert await lacks(world)


async def test_a_collection_lost_during_backfill_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its former group remains; its lag of zero does not count for the new one."""
    monkeypatch.setattr(switching, "POLL_SECONDS", 0.01)
    await world.publish(*range(10))
    spec = world.specs["next"]
    former = await world.index.ensure_collection(spec)
    handled: dict[str, int] = {former.group: 1}
    world.groups = OneMoreEachTime(handled)
    seen: list[BackfillProgress] = []
    async for each in world.switching().backfill_progress(former):
        seen.append(each)
        if len(seen) == 2:
            await world.index.drop(former)
            new = await world.index.ensure_collection(spec)
    assert seen[-1].caught_up
    assert seen[-1].handled == {0: 5}
    assert handled[new.group] >= 5


async def back(world: World, there: int, here: int) -> None:
    await world.fill("lite", *range(there))
    collection = await world.fill("next", *range(here))
    with model_registry(world.settings).changing() as change:
        change.state = change.state.with_active("next")
    await world.index.activate(collection)


@pytest.mark.slow
@pytest.mark.parametrize(("there", "refused"), [(98, True), (99, False), (100, False)])
async def test_a_rollback_checks_for_missing_images(
    world: World, there: int, refused: bool
) -> None:
    await back(world, there, 100)
    if refused:
        with pytest.raises(SwitchRefused, match="98 pictures"):
            await world.switching().rollback(0.01)
        assert await world.alias() == "next"
        await world.switching().rollback(1.0)
    else:
        await world.switching().rollback(0.01)
    assert await world.alias() == "lite"
    reported = await newest_activation(world.log)
    assert reported is not None
    assert (reported.model_name, reported.step) == ("lite", ModelStep.ROLLED_BACK)
    assert reported.collection == collection_name(world.specs["lite"])
