"""A collection that was created again is filled from the beginning of the log."""

import asyncio

import pytest

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from adapters.provision import (
    log_active,
    newest_activation,
    provision_collection,
    recovered_collection,
)
from consumers.indexing import app
from consumers.indexing.app import CollectionLost, _check_collection
from schemas.events import ModelActivated, ModelStep
from schemas.topics import MODELS


def lose(index: FakeImageIndex) -> None:
    """All that the server stored."""
    index.collections.clear()
    index.records.clear()
    index._active = None


async def test_a_recreated_collection_has_its_own_group(small_spec: ModelSpec) -> None:
    index = FakeImageIndex()
    first = await index.ensure_collection(small_spec)
    assert (await index.ensure_collection(small_spec)).group == first.group
    lose(index)
    second = await index.ensure_collection(small_spec)
    assert second.name == first.name
    assert second.group != first.group


def test_a_collection_of_an_earlier_version_keeps_its_group() -> None:
    assert Collection("Images_x_0", "x", "0", 8).group == "indexing-Images_x_0"


async def test_a_recreated_collection_is_activated(small_spec: ModelSpec) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    await provision_collection(embedder, index, log, small_spec.name)
    lose(index)
    made = await recovered_collection(index, log, small_spec)
    assert await index.active() == made


async def test_an_indexer_of_another_model_does_not_activate_its_collection(
    small_spec: ModelSpec,
) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    await provision_collection(embedder, index, log, small_spec.name)
    lose(index)
    await recovered_collection(index, log, small_spec.model_copy(update={"name": "candidate"}))
    assert await index.active() is None


async def test_an_indexer_detects_that_its_collection_is_missing(
    small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHECK_SECONDS", 0.01)
    index = FakeImageIndex()
    collection = await index.ensure_collection(small_spec)
    check = asyncio.create_task(_check_collection(index, FakeEventLog(), collection))
    index.available = False
    await asyncio.sleep(0.05)
    index.available = True
    await asyncio.sleep(0.05)
    assert not check.done(), "an outage is no loss"
    lose(index)
    with pytest.raises(CollectionLost):
        await asyncio.wait_for(check, 5)
    again = asyncio.create_task(
        _check_collection(index, FakeEventLog(), await index.ensure_collection(small_spec))
    )
    lose(index)
    await index.ensure_collection(small_spec)
    with pytest.raises(CollectionLost):
        await asyncio.wait_for(again, 5)


async def test_a_lost_alias_is_restored(
    small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHECK_SECONDS", 0.01)
    index, log = FakeImageIndex(), FakeEventLog()
    collection = await recovered_collection(index, log, small_spec)
    candidate = await recovered_collection(
        index, log, small_spec.model_copy(update={"name": "candidate"})
    )
    index._active = None
    theirs = asyncio.create_task(_check_collection(index, log, candidate))
    await asyncio.sleep(0.05)
    assert await index.active() is None, "not what the log names"
    ours = asyncio.create_task(_check_collection(index, log, collection))
    async with asyncio.timeout(5):
        while await index.active() != collection:
            await asyncio.sleep(0.01)
    for check in (ours, theirs):
        check.cancel()


async def test_provisioning_activates_the_model_that_the_log_names(small_spec: ModelSpec) -> None:
    """Whatever model the settings name: the alias alone was lost, and another one was active."""
    index, log = FakeImageIndex(), FakeEventLog()
    other = small_spec.model_copy(update={"name": "other"})
    embedder = FakeEmbedder(served={each.name: each for each in (small_spec, other)})
    await provision_collection(embedder, index, log, "other")
    index._active = None
    await provision_collection(embedder, index, log, small_spec.name)
    active = await index.active()
    assert active is not None
    assert active.model_name == "other"
    assert [step for step, _ in await steps(log)] == ["activated"]


async def test_a_switch_is_found_after_the_clock_was_set_back() -> None:
    log = FakeEventLog()
    for name, when in (("a", "2026-05-01T00:00:00Z"), ("b", "2026-04-01T00:00:00Z")):
        event = ModelActivated(
            occurred_at=when,
            step=ModelStep.ACTIVATED,
            model_name=name,
            model_version="0",
            collection=f"Images_{name}_0",
        )
        await log.publish(MODELS, [Message(name, event)])
    reported = await newest_activation(log)
    assert reported is not None
    assert reported.model_name == "b"


async def test_all_models_are_published_again_to_a_lost_log(
    small_spec: ModelSpec,
) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    other = await index.ensure_collection(small_spec.model_copy(update={"name": "other"}))
    await provision_collection(embedder, index, log, small_spec.name)
    await provision_collection(embedder, index, log, small_spec.name)
    active = await index.active()
    assert active is not None
    assert await steps(log) == [("feeding", other.name), ("activated", active.name)]


async def steps(log: FakeEventLog) -> list[tuple[str, str]]:
    from schemas.codec import decode

    events = [decode(ModelActivated, r.value) async for r in log.read_all(MODELS)]
    return [(event.step.value, event.collection) for event in events]


async def test_the_missing_event_of_a_switch_is_published_after_a_crash(
    small_spec: ModelSpec,
) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    await provision_collection(embedder, index, log, small_spec.name)
    other = await index.ensure_collection(small_spec.model_copy(update={"name": "other"}))
    await index.activate(other)  # And here the command was killed.
    await provision_collection(embedder, index, log, small_spec.name)
    first = next(name for name in index.collections if name != other.name)
    assert await steps(log) == [("activated", first), ("activated", other.name)]
    await log_active(index, log)
    assert len(await steps(log)) == 2
    reported = await newest_activation(log)
    assert reported is not None
    assert reported.previous_collection == first


async def test_other_steps_do_not_change_the_active_model(small_spec: ModelSpec) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    collection = await index.ensure_collection(small_spec)
    await index.activate(collection)
    await log_active(index, log, ModelStep.ROLLED_BACK)
    event = ModelActivated(
        step=ModelStep.BACKFILLING, model_name="new", model_version="0", collection="Images_new_0"
    )
    await log.publish(MODELS, [Message("new", event), Message("foreign", b"no event")])
    reported = await newest_activation(log)
    assert reported is not None
    assert reported.collection == collection.name


async def test_the_models_topic_is_restored_from_the_alias(small_spec: ModelSpec) -> None:
    """As after Kafka lost its data."""
    index = FakeImageIndex()
    embedder = FakeEmbedder(served={small_spec.name: small_spec})
    await provision_collection(embedder, index, FakeEventLog(), small_spec.name)
    empty = FakeEventLog()
    await provision_collection(embedder, index, empty, small_spec.name)
    assert await steps(empty) == [("activated", next(iter(index.collections)))]


async def test_no_collection_is_activated_while_the_log_is_down(small_spec: ModelSpec) -> None:
    index, log = FakeImageIndex(), FakeEventLog()
    log.available = False
    with pytest.raises(Unavailable):
        await recovered_collection(index, log, small_spec)
    assert await index.active() is None
