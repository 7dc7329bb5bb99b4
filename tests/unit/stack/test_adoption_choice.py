"""A stack whose models a user has changed by a command is not changed by itself any more."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.index.port import Collection
from adapters.naming import collection_name
from cli import models_files
from models.adoption_rule import objection
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from models.registry import ModelState
from models.store import Origin
from models.switching import ModelSwitcher
from schemas.events import ModelStep
from stack.adopting import decide
from stack.settings import FORMERLY_PREFERRED_MODEL, StackSettings
from stack.settings import PREFERRED_MODEL as NAME
from stack.triton_models import model_registry
from tests.support import tiny_model
from tests.support.adoption_world import Killed, World

LITE = "lite"
OTHER = FORMERLY_PREFERRED_MODEL
Command = Callable[[ModelSwitcher], Awaitable[object]]


def settings(folder: Path, **more: Any) -> StackSettings:
    return StackSettings(state_dir=folder / "state", cache_dir=folder / "cache", **more)


def status(**more: Any) -> AdoptionStatus:
    fields = {"model": NAME, "instead_of": LITE, "step": AdoptionStep.FILLING, **more}
    return AdoptionStatus(**fields)


async def backfill(switcher: ModelSwitcher) -> None:
    await switcher.prepare(OTHER)


async def switch_back_and_retire(switcher: ModelSwitcher) -> None:
    lite = await switcher.prepare(LITE)
    await switcher.activate(await switcher.prepare(OTHER), ModelStep.ACTIVATED)
    await switcher.activate(lite, ModelStep.ACTIVATED)
    await switcher.retire(OTHER)


async def roll_back(switcher: ModelSwitcher) -> None:
    await switcher.activate(await switcher.prepare(OTHER), ModelStep.ACTIVATED)
    await switcher.rollback()


async def choose_the_active_one(switcher: ModelSwitcher) -> None:
    await switcher.prepare(LITE)


@pytest.mark.parametrize(
    "command", [backfill, switch_back_and_retire, roll_back, choose_the_active_one]
)
async def test_every_command_that_changes_the_models_counts(
    world: World, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.switching.GATEWAY_SECONDS", 0.0)
    layout = tiny_model.write_layout(tmp_path / "other", seed=2)
    model_registry(world.settings).store().add(layout, OTHER, Origin(source="x"))
    async with world.by_command() as switcher:
        await command(switcher)
    assert model_registry(world.settings).read().chosen
    chosen = settings(tmp_path, model_name=NAME)
    assert decide(chosen).model is None
    assert (await world.attempt()).step is AdoptionStep.SUPERSEDED
    assert await world.answering() == LITE
    assert world.server.downloads == []


@pytest.mark.slow
async def test_the_change_itself_is_no_choice(world: World) -> None:
    assert (await world.attempt()).step is AdoptionStep.DONE
    assert not model_registry(world.settings).read().chosen


async def test_a_model_that_a_command_keeps_out_of_service_stays_so(world: World) -> None:
    """As after `--backfill-only`, or a gate that refused it."""
    with pytest.raises(Killed):
        await world.attempt(kill_at=2)
    world.file.clear()
    tiny = world.server.folder
    store = model_registry(world.settings).store()
    if NAME not in store.names():
        store.add(tiny, NAME, Origin(source="x"))
    async with world.by_command() as switcher:
        await switcher.prepare(NAME)
    assert decide(world.settings).model is None
    ended = await world.attempt()
    assert (ended.step, ended.loaded) == (AdoptionStep.SUPERSEDED, True)
    assert f"models retire {NAME}" in ended.sentence()
    assert NAME in model_registry(world.settings).read().current
    assert await world.answering() == LITE


@pytest.mark.parametrize(
    "state",
    [
        ModelState(active=LITE, current=(LITE,)),
        ModelState(active=LITE, current=(LITE,), first=OTHER),
        ModelState(active=LITE, current=(LITE,), first=LITE, chosen=True),
        ModelState(active=LITE, current=(LITE, NAME), first=LITE),
        ModelState(active=LITE, current=(LITE, OTHER), first=LITE),
        ModelState(active=LITE, current=(LITE,), first=LITE, candidate=OTHER),
        ModelState(active=LITE, current=(LITE,), first=LITE, retiring=NAME),
        ModelState(active=LITE, current=(LITE,), first=LITE, previous=OTHER),
        ModelState(active=OTHER, current=(LITE, OTHER), first=LITE),
    ],
)
def test_only_a_stack_that_nobody_touched_is_changed(state: ModelState, tmp_path: Path) -> None:
    with model_registry(settings(tmp_path)).changing() as change:
        change.state = state
    assert decide(settings(tmp_path)).model is None
    assert objection(state, NAME, LITE, declined=False, status=None) is not None
    untouched = ModelState(active=LITE, current=(LITE,), first=LITE)
    assert objection(untouched, NAME, LITE, declined=False, status=None) is None


def test_a_model_that_was_retired_between_two_attempts_is_declined() -> None:
    state = ModelState(active=LITE, current=(LITE,), first=LITE)
    for step in AdoptionStep.FILLING, AdoptionStep.CHECKING:
        found = objection(state, NAME, LITE, declined=False, status=status(step=step))
        assert found is not None
        assert found.step is AdoptionStep.DECLINED
    for step in AdoptionStep.DOWNLOADING, AdoptionStep.LOADING:
        assert objection(state, NAME, LITE, declined=False, status=status(step=step)) is None


@pytest.mark.slow
async def test_a_command_between_the_last_check_and_the_switch_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is looked at once more under the lock under which the alias is moved."""
    before = ModelSwitcher.agree_with_alias

    async def agree(switcher: ModelSwitcher) -> ModelState:
        state = await before(switcher)
        if NAME in state.current:
            with model_registry(world.settings).changing() as change:
                change.state = change.state.by_command()
        return state

    monkeypatch.setattr(ModelSwitcher, "agree_with_alias", agree)
    ended = await world.attempt()
    assert (ended.step, ended.loaded) == (AdoptionStep.SUPERSEDED, True)
    assert await world.answering() == LITE


@pytest.mark.slow
async def test_an_alias_that_names_a_model_of_others_is_not_moved(world: World) -> None:
    theirs = Collection("Images_Other", "ViT-L-14__openai", "abc", 768)
    world.index.collections[theirs.name] = theirs
    world.index.records[theirs.name] = {}
    await world.index.activate(theirs)
    ended = await world.attempt()
    assert ended.step is AdoptionStep.SUPERSEDED
    assert "ViT-L-14__openai answers searches" in ended.sentence()
    assert await world.answering() == "ViT-L-14__openai"


class TestEarlierVersion:
    """Its state file names no first model."""

    def start(self, folder: Path, *states: str) -> ModelState:
        chosen = settings(folder)
        chosen.state.mkdir(parents=True, exist_ok=True)
        for state in states:
            if chosen.model_state.exists():
                chosen.model_state.replace(chosen.model_state_before)
            chosen.model_state.write_text(state)
        model_registry(chosen).record_start()
        return model_registry(chosen).read()

    def test_a_file_that_never_changed_holds_the_first_model_alone(self, tmp_path: Path) -> None:
        state = self.start(tmp_path, '{"active": "lite", "fed": ["lite"]}')
        assert (state.first, state.chosen) == (LITE, False)
        assert decide(settings(tmp_path)).model == NAME

    def test_one_that_has_changed_stays(self, tmp_path: Path) -> None:
        """`models switch lite`, then `models retire`: only the file before it shows that."""
        state = self.start(
            tmp_path,
            '{"active": "lite", "fed": ["lite", "x"], "previous": "x"}',
            '{"active": "lite", "fed": ["lite"]}',
        )
        assert state.chosen
        found = decide(settings(tmp_path))
        assert found.model is None
        assert f"for a better one: ./image-search models pull {NAME}" in found.sentence

    def test_one_beside_a_model_that_was_added_stays(self, tmp_path: Path) -> None:
        origin = tmp_path / "cache" / "models" / OTHER / "origin.json"
        origin.parent.mkdir(parents=True)
        origin.write_text("{}")
        assert self.start(tmp_path, '{"active": "lite", "fed": ["lite"]}').chosen

    def test_the_second_start_changes_nothing(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.by_command()
        model_registry(settings(tmp_path)).record_start()
        state = model_registry(settings(tmp_path)).read()
        assert (state.first, state.chosen) == (LITE, True)


def test_a_file_that_was_recovered_says_that_a_command_may_have_changed_it(
    tmp_path: Path,
) -> None:
    chosen = settings(tmp_path)
    spec = model_registry(chosen).store().spec(LITE)
    (chosen.state / "weaviate" / collection_name(spec).lower()).mkdir(parents=True)
    assert model_registry(chosen).read().chosen
    assert decide(chosen).model is None


class TestServersOfOthers:
    def test_a_named_model_is_served_by_a_triton_elsewhere(self, tmp_path: Path) -> None:
        elsewhere = {"triton_url": "http://gpu:8000"}
        assert settings(tmp_path, model_name=OTHER, **elsewhere).start_model == OTHER
        assert settings(tmp_path, **elsewhere).start_model == LITE

    def test_a_weaviate_elsewhere_is_left_alone(self, tmp_path: Path) -> None:
        found = decide(settings(tmp_path, weaviate_url="http://w:8080"))
        assert found.model is None
        assert "Weaviate is not part of this stack" in found.sentence
        assert f"models switch {NAME}" in found.sentence


class TestSentence:
    def test_size_licence_and_how_to_decline_are_said_together(self, tmp_path: Path) -> None:
        said = decide(settings(tmp_path)).sentence
        assert f"{NAME} (0.6 GB, licence MIT) replaces it once it is downloaded" in said
        assert "models decline" in said

    def test_a_model_that_is_installed_is_not_downloaded(self, tmp_path: Path) -> None:
        model_registry(settings(tmp_path)).record_start()
        origin = tmp_path / "cache" / "models" / NAME / "origin.json"
        origin.parent.mkdir(parents=True)
        origin.write_text("{}")
        found = decide(settings(tmp_path))
        assert found.model == NAME
        assert "which is installed, replaces it once its collection is filled" in found.sentence
        assert "download" not in found.sentence.split(";", 1)[1]

    def test_a_name_that_is_not_in_the_catalogue_is_said(self, tmp_path: Path) -> None:
        model_registry(settings(tmp_path)).record_start()
        found = decide(settings(tmp_path, model_name="ViT-B-32_laion2b"))
        assert found.model is None
        assert "MODEL_NAME names ViT-B-32_laion2b, which is not in the catalogue" in found.sentence

    def test_a_change_that_is_dropped_for_another_is_said(self, tmp_path: Path) -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_current(NAME)
        AdoptionFile(settings(tmp_path).adoption).write(status())
        found = decide(settings(tmp_path, model_name="ViT-L-14__openai"))
        assert (found.model, found.dropped) == ("ViT-L-14__openai", NAME)
        assert f"the unfinished change to {NAME} is ended" in found.sentence
        found = decide(settings(tmp_path, model_name=LITE))
        assert (found.model, found.dropped) == (None, NAME)

    def test_one_that_stays_loaded_is_said(self, tmp_path: Path) -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_current(NAME)
        found = decide(settings(tmp_path))
        assert (found.model, found.dropped) == (None, None)
        assert f"{NAME} is still loaded; to free its memory" in found.sentence


@pytest.mark.slow
async def test_a_model_that_a_user_removes_is_not_downloaded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cannot_load = "not enough memory"
    await world.attempt()
    monkeypatch.setattr("stack.settings.StackSettings", lambda: world.settings)
    models_files.remove(NAME)
    assert (await world.attempt()).step is AdoptionStep.SUPERSEDED
