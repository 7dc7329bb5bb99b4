"""One attempt of the change to a better model, on in-memory servers and a hub on this machine."""

import pytest

from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from stack import adoption as adopting
from stack.settings import PREFERRED_MODEL as NAME
from stack.triton_models import model_registry
from tests.support.adoption_world import Killed, World, no_room


@pytest.mark.slow
async def test_it_downloads_fills_and_switches_and_says_each_step(world: World) -> None:
    status = await world.attempt()
    assert (status.step, status.problem) == (AdoptionStep.DONE, "")
    assert await world.answering() == NAME
    state = model_registry(world.settings).read()
    assert (state.active, state.previous, state.current) == (NAME, "lite", ("lite", NAME))
    assert list(dict.fromkeys(each.step for each in world.written)) == [
        AdoptionStep.DOWNLOADING,
        AdoptionStep.INSTALLING,
        AdoptionStep.LOADING,
        AdoptionStep.FILLING,
        AdoptionStep.CHECKING,
        AdoptionStep.DONE,
    ]
    first = world.written[0]
    assert first.bytes_total > 1_000_000
    assert f"of {first.bytes_total / 1e6:.0f} MB" in first.sentence()
    assert first.decline is not None
    assert "models decline" in first.decline
    assert "lite answers searches meanwhile" in first.sentence()
    assert not (world.settings.cache / "hub" / f"immich-app--{NAME}").exists(), "installed twice"
    assert world.file.read() == status
    assert (await world.attempt()).step is AdoptionStep.DONE, "it can be repeated"


@pytest.mark.slow
async def test_killed_at_any_point_it_ends_the_same(world: World) -> None:
    kills = 0
    while True:
        world.written.clear()
        try:
            # Each attempt gets one report further than the one before.
            status = await world.attempt(kill_at=kills)
            break
        except Killed:
            kills += 1
        assert await world.answering() in ("lite", NAME)
    assert kills >= 4
    assert status.step is AdoptionStep.DONE
    assert await world.answering() == NAME
    assert len([name for name in world.server.downloads if name == "visual/model.onnx"]) == 1


@pytest.mark.slow
async def test_what_was_downloaded_is_kept_and_only_the_rest_is_fetched(world: World) -> None:
    weights = world.server.folder / "textual" / "model.onnx.data"
    weights.write_bytes(bytes(range(256)) * 1000)
    part = world.settings.cache / "hub" / f"immich-app--{NAME}"
    part = part / "0123456789abcdef0123456789abcdef01234567" / "textual" / "model.onnx.data.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(weights.read_bytes()[:100_000])
    assert (await world.attempt()).step is AdoptionStep.DONE
    assert world.server.ranges == ["bytes=100000-"]
    assert world.written[0].bytes_done == 100_000


@pytest.mark.slow
async def test_a_part_that_is_damaged_is_fetched_again(world: World) -> None:
    weights = world.server.folder / "textual" / "model.onnx.data"
    weights.write_bytes(bytes(range(256)) * 1000)
    part = world.settings.cache / "hub" / f"immich-app--{NAME}"
    part = part / "0123456789abcdef0123456789abcdef01234567" / "textual" / "model.onnx.data.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100_000)
    status = await world.attempt()
    assert "model.onnx.data is damaged" in status.problem
    assert status.retry_at is not None
    assert await world.answering() == "lite"
    assert (await world.attempt()).step is AdoptionStep.DONE


@pytest.mark.slow
async def test_without_a_network_it_tries_again_and_waits_longer_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        waits = []
        for _ in range(12):
            status = await world.attempt()
            assert status.retry_at is not None
            waits.append((status.retry_at - status.updated_at).total_seconds())
        assert not status.ended
        assert "lite stays for now" in status.sentence()
    assert waits[:3] == pytest.approx([10, 20, 40], abs=1)
    assert waits[-1] == pytest.approx(3600, abs=1)
    assert await world.answering() == "lite"
    assert (await world.attempt()).step is AdoptionStep.DONE


async def test_a_hub_without_the_model_leaves_lite(world: World) -> None:
    for file in ("config.json", "textual/tokenizer.json"):
        (world.server.folder / file).unlink()
    status = await world.attempt()
    assert status.step is AdoptionStep.FAILED
    assert "lite stays" in status.sentence()
    assert await world.answering() == "lite"


@pytest.mark.slow
async def test_a_full_disk_is_noticed_before_anything_is_downloaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_room(monkeypatch, 1_000_000):
        status = await world.attempt()
    assert "free some space" in status.problem
    assert world.server.downloads == []
    assert await world.answering() == "lite"
    assert (await world.attempt()).step is AdoptionStep.DONE


@pytest.mark.slow
async def test_weaviate_keeps_the_share_of_the_disk_that_it_needs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_room(monkeypatch, 99 * 10**9):
        assert "100.0 GB that have to stay free" in (await world.attempt()).problem
    with no_room(monkeypatch, 101 * 10**9):
        assert (await world.attempt()).step is AdoptionStep.DONE


@pytest.mark.slow
async def test_a_status_that_cannot_be_written_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: AdoptionFile, __: AdoptionStatus) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(AdoptionFile, "write", full)
    assert (await world.attempt()).step is AdoptionStep.DONE
    assert await world.answering() == NAME


@pytest.mark.slow
async def test_a_model_that_does_not_load_leaves_lite(world: World) -> None:
    world.cannot_load = "not enough memory"
    status = await world.attempt()
    assert (status.step, status.problem) == (AdoptionStep.LOADING, "not enough memory")
    assert model_registry(world.settings).read().current == ("lite",)
    world.cannot_load = ""
    assert (await world.attempt()).step is AdoptionStep.DONE


@pytest.mark.slow
async def test_a_collection_that_lacks_pictures_does_not_answer(world: World) -> None:
    world.missing = "2 of 100 pictures are not in it"
    status = await world.attempt()
    assert (status.step, status.problem) == (AdoptionStep.CHECKING, world.missing)
    assert await world.answering() == "lite"
    world.missing = ""
    assert (await world.attempt()).step is AdoptionStep.DONE


async def test_a_user_who_declined_is_heard(world: World) -> None:
    world.file.decline()
    status = await world.attempt()
    assert status.step is AdoptionStep.DECLINED
    assert world.server.downloads == []
    assert f"models pull {NAME}" in status.sentence()


@pytest.mark.parametrize("back", [False, True])
async def test_a_model_that_a_user_chose_stays(world: World, back: bool) -> None:
    with model_registry(world.settings).changing() as change:
        change.state = change.state.with_active("other")
        if back:
            change.state = change.state.with_active("lite")
    assert (await world.attempt()).step is AdoptionStep.SUPERSEDED
    assert world.server.downloads == []


async def test_a_switch_by_a_command_ends_the_change(world: World) -> None:
    """Whether it is in progress, or a finished `--backfill-only`, which stays the candidate."""
    with model_registry(world.settings).changing() as change:
        change.state = change.state.with_current("other").model_copy(update={"candidate": "other"})
    status = await world.attempt()
    assert (status.step, status.retry_at) == (AdoptionStep.SUPERSEDED, None)
    assert "other is loaded without answering searches" in status.sentence()


@pytest.mark.slow
async def test_one_that_was_retired_while_it_was_filled_is_declined(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = adopting._counts

    async def counts(*arguments: object) -> dict[str, int]:
        with model_registry(world.settings).changing() as change:
            change.state = change.state.without(NAME)
        return await before(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(adopting, "_counts", counts)
    assert (await world.attempt()).step is AdoptionStep.DECLINED
    assert await world.answering() == "lite"
