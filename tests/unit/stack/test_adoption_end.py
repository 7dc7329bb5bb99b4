"""What is left of a change to a better model that is not continued, and what is said about it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import typer
from filelock import FileLock

from adapters.bootstrap import Connections
from cli import models_adopt
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from models.errors import ServingFailed, SwitchRefused
from models.registry import ModelState
from models.switching import ModelSwitcher
from stack import adopting
from stack.adopting import Decision, decide, keep_adopting
from stack.errors import StackError
from stack.launcher import Launcher
from stack.record import RecordFile
from stack.settings import PREFERRED_MODEL as NAME
from stack.settings import StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess
from stack.triton_models import model_registry
from tests.support.adoption_world import World

Captured = pytest.CaptureFixture[str]


def settings(folder: Path, **more: Any) -> StackSettings:
    return StackSettings(state_dir=folder / "state", cache_dir=folder / "cache", **more)


def status(step: AdoptionStep, **more: Any) -> AdoptionStatus:
    return AdoptionStatus(model=NAME, instead_of="lite", step=step, **more)


def part_of_the_download(chosen: StackSettings) -> Path:
    part = chosen.cache / "hub" / f"immich-app--{NAME}" / "c" / "config.json.part"
    part.parent.mkdir(parents=True)
    part.touch()
    return part


@pytest.fixture
def running(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A stack that runs, for the commands: their servers are the world's."""

    @contextlib.asynccontextmanager
    async def connect(_: object) -> AsyncIterator[Connections]:
        async with world.connect() as servers:
            yield servers

    def switcher(_: object, servers: Connections, permit: Any) -> ModelSwitcher:
        return ModelSwitcher(model_registry(world.settings), servers, world, permit=permit)

    monkeypatch.setattr(models_adopt, "StackSettings", lambda: world.settings)
    monkeypatch.setattr(models_adopt, "connections", connect)
    monkeypatch.setattr(models_adopt, "_switcher", switcher)
    monkeypatch.setattr(RecordFile, "launcher_runs", lambda _: True)
    monkeypatch.setattr("models.switching.GATEWAY_SECONDS", 0.0)
    return world


async def half_way(world: World) -> None:
    """The model is loaded and filled, and its collection lacks pictures."""
    world.missing = "2 of 100 pictures are not in it"
    assert (await world.attempt()).step is AdoptionStep.CHECKING
    assert NAME in world.served


class TestDeclining:
    @pytest.mark.slow
    async def test_a_model_that_the_change_has_loaded_is_unloaded(
        self, running: World, capsys: Captured
    ) -> None:
        await half_way(running)
        await asyncio.to_thread(models_adopt.decline)
        said = capsys.readouterr().out
        assert f"lite stays; {NAME} is unloaded; {NAME} stays installed" in said
        assert "deleted" not in said
        assert f"models remove {NAME}" in said
        assert NAME not in running.served
        state = model_registry(running.settings).read()
        assert (state.current, state.retiring) == (("lite",), None)

    @pytest.mark.slow
    async def test_one_that_is_loaded_but_not_current_is_unloaded(
        self, running: World, capsys: Captured
    ) -> None:
        """The process was killed while it loaded the model."""
        running.cannot_load = "x"
        await running.attempt()
        running.cannot_load = ""
        await running.load(NAME)
        await asyncio.to_thread(models_adopt.decline)
        assert NAME not in running.served
        assert f"{NAME} is unloaded" in capsys.readouterr().out

    @pytest.mark.slow
    async def test_one_that_cannot_be_unloaded_is_said(
        self, running: World, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(_: World, __: str) -> None:
            raise ServingFailed("still running: indexer")

        await half_way(running)
        monkeypatch.setattr(World, "wait_for_indexers_to_stop", refuse)
        await asyncio.to_thread(models_adopt.decline)
        said = capsys.readouterr().out
        assert f"{NAME} is still loaded; to free its memory: ./image-search models retire" in said
        assert "still running: indexer" in said

    @pytest.mark.slow
    async def test_one_that_a_command_loaded_stays(self, running: World, capsys: Captured) -> None:
        await half_way(running)
        async with running.by_command() as switcher:
            await switcher.prepare(NAME)
        await asyncio.to_thread(models_adopt.decline)
        assert NAME in running.served
        assert f"models retire {NAME}" in capsys.readouterr().out

    @pytest.mark.slow
    async def test_after_the_alias_was_moved_it_is_too_late(self, running: World) -> None:
        """The process was killed after it moved the alias, and before it recorded that."""
        await half_way(running)
        async with running.connect() as servers:
            spec = await servers.embedder.spec(NAME)
            await running.index.activate(await running.index.ensure_collection(spec))
        with pytest.raises(StackError, match="models rollback"):
            await asyncio.to_thread(models_adopt.decline)
        assert not running.file.declined
        last = running.file.read()
        assert last is not None
        assert last.step is AdoptionStep.DONE
        assert model_registry(running.settings).read().active == NAME

    def test_a_download_in_use_is_not_said_to_be_deleted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        chosen = settings(tmp_path)
        part = part_of_the_download(chosen)
        monkeypatch.setattr(models_adopt, "StackSettings", lambda: chosen)
        with FileLock(part.parent.parent / ".lock"):
            models_adopt.decline()
        said = capsys.readouterr().out
        assert f"what was downloaded stays in {part.parent.parent}" in said
        models_adopt.decline()
        assert "what was downloaded is deleted" in capsys.readouterr().out
        models_adopt.decline()
        assert f"nothing of {NAME} was downloaded" in capsys.readouterr().out


class TestGivingUp:
    @pytest.mark.slow
    async def test_what_the_change_has_loaded_is_unloaded_and_may_be_loaded_again(
        self, running: World
    ) -> None:
        await half_way(running)
        await asyncio.to_thread(models_adopt.adopt, NAME, give_up=True)
        state = model_registry(running.settings).read()
        assert (state.current, state.chosen) == (("lite",), False)
        assert NAME not in running.served
        running.file.clear()
        running.missing = ""
        assert (await running.attempt()).step is AdoptionStep.DONE

    @pytest.mark.slow
    async def test_what_a_command_has_loaded_stays(self, running: World) -> None:
        await half_way(running)
        async with running.by_command() as switcher:
            await switcher.prepare(NAME)
        with pytest.raises(typer.Exit):
            await asyncio.to_thread(models_adopt.adopt, NAME, give_up=True)
        assert NAME in running.served

    def test_a_command_in_the_last_moment_wins(self) -> None:
        state = ModelState(active="lite", current=("lite", NAME), first="lite")
        models_adopt._check_unchosen(state)
        with pytest.raises(SwitchRefused):
            models_adopt._check_unchosen(state.by_command())


class Processes:
    """A supervisor whose processes end at once."""

    def __init__(self, exit_status: int = 0) -> None:
        self.processes: dict[str, SupervisedProcess] = {}
        self.commands: list[str] = []
        self.exit_status = exit_status

    def add(self, spec: ProcessSpec) -> None:
        self.commands.append(" ".join(spec.command[3:]))
        ended = SupervisedProcess(spec, ProcessState.DONE, exit_status=self.exit_status)
        self.processes[spec.name] = ended

    async def remove(self, name: str) -> None:
        del self.processes[name]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "POLL_SECONDS", 0.001)


async def keep(chosen: StackSettings, decision: Decision, processes: Processes) -> list[str]:
    said: list[str] = []
    async with asyncio.timeout(20):
        await keep_adopting(chosen, processes, decision, said.append)  # type: ignore[arg-type]
    return said


class TestLauncher:
    @pytest.mark.parametrize("step", [AdoptionStep.FILLING, AdoptionStep.FAILED])
    async def test_a_change_that_is_dropped_is_cleared_away(
        self, tmp_path: Path, step: AdoptionStep
    ) -> None:
        """By MODEL_NAME=lite at the next start."""
        chosen, processes = settings(tmp_path, model_name="lite"), Processes()
        AdoptionFile(chosen.adoption).write(status(step, problem="x"))
        said = await keep(chosen, decide(chosen), processes)
        assert processes.commands == [f"models adopt {NAME} --give-up"]
        assert said == [f"what was left of the change to {NAME} is deleted"]
        assert AdoptionFile(chosen.adoption).read() is None

    async def test_what_could_not_be_unloaded_is_said(self, tmp_path: Path) -> None:
        chosen = settings(tmp_path, model_name="lite")
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_current(NAME)
        AdoptionFile(chosen.adoption).write(status(AdoptionStep.FILLING))
        said = await keep(chosen, decide(chosen), Processes(exit_status=1))
        assert said == [
            f"the change to {NAME} is ended; {NAME} is still loaded; to free its memory: "
            f"./image-search models retire {NAME}"
        ]

    async def test_a_model_retired_between_two_attempts_is_not_loaded_again(
        self, tmp_path: Path
    ) -> None:
        chosen, processes = settings(tmp_path), Processes()
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_current(NAME)
        file = AdoptionFile(chosen.adoption)
        file.write(status(AdoptionStep.CHECKING, problem="x"))
        decision = decide(chosen)
        assert decision.model == NAME
        with model_registry(chosen).changing() as change:
            change.state = change.state.without(NAME)
        said = await keep(chosen, decision, processes)
        assert processes.commands == [f"models adopt {NAME} --give-up"]
        assert f"{NAME} was declined" in said[0]
        last = file.read()
        assert last is not None
        assert last.step is AdoptionStep.DECLINED

    async def test_a_change_that_was_made_but_not_reported_is_done(self, tmp_path: Path) -> None:
        chosen = settings(tmp_path)
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_active(NAME)
        file = AdoptionFile(chosen.adoption)
        file.write(status(AdoptionStep.CHECKING))
        processes = Processes()
        assert await keep(chosen, decide(chosen), processes) == []
        last = file.read()
        assert last is not None
        assert (last.step, processes.commands) == (AdoptionStep.DONE, [])

    async def test_a_detached_start_shows_what_will_be_downloaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`up --detach` returns once the record says that the stack is ready."""
        launcher = Launcher(settings(tmp_path), servers_only=False, follow=False)
        events: list[str] = []
        monkeypatch.setattr(launcher, "_say", events.append)
        monkeypatch.setattr(launcher, "_write", lambda _: events.append("written"))
        launcher._decided = asyncio.get_running_loop().create_future()
        launcher._announce(Processes())  # type: ignore[arg-type]
        assert "0.6 GB, licence MIT" in events[0]
        assert "models decline" in events[0]
        assert events[-1] == "written"
        assert (await launcher._decided).model == NAME


def test_a_failure_is_shown_only_while_the_old_model_answers() -> None:
    failed = status(AdoptionStep.FAILED, problem="x")
    assert failed.is_news_for("lite")
    assert not failed.is_news_for("ViT-B-16-SigLIP2__webli")
