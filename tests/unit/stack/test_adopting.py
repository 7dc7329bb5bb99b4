"""Whether a stack moves to a better model by itself, and what the launcher does and says then."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli import models_adopt
from models import adoption_status
from models.adoption_status import NEWS, AdoptionFile, AdoptionStatus, AdoptionStep
from stack import adopting
from stack.adopting import Decision, Reporter, decide
from stack.errors import StackError
from stack.processes import indexers
from stack.settings import FALLBACK_MODEL, PREFERRED_MODEL, StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess, Supervisor
from stack.triton_models import model_registry
from tests.conftest import NO_HUB, run_image_search, stack_environment

NAME = PREFERRED_MODEL
OTHER = "ViT-L-14__openai"


def settings(folder: Path, **more: Any) -> StackSettings:
    return StackSettings(state_dir=folder / "state", cache_dir=folder / "cache", **more)


def status(**more: Any) -> AdoptionStatus:
    fields = {"model": NAME, "instead_of": "lite", "step": AdoptionStep.DOWNLOADING, **more}
    return AdoptionStatus(**fields)


def install(folder: Path, name: str) -> None:
    (folder / "cache" / "models" / name).mkdir(parents=True)


class TestFirstModel:
    def test_the_default_starts_with_lite_and_moves_on(self, tmp_path: Path) -> None:
        chosen = settings(tmp_path)
        assert (chosen.model_name, chosen.start_model) == (NAME, "lite")
        assert decide(chosen).model == NAME
        assert "models decline" in decide(chosen).sentence

    def test_one_that_is_installed_is_the_first(self, tmp_path: Path) -> None:
        install(tmp_path, NAME)
        chosen = settings(tmp_path)
        assert chosen.start_model == NAME
        assert decide(chosen) == Decision(None, f"model: {NAME}")

    def test_the_earlier_default_is_used_if_only_that_is_installed(self, tmp_path: Path) -> None:
        install(tmp_path, "ViT-B-32__openai")
        chosen = settings(tmp_path)
        assert chosen.start_model == "ViT-B-32__openai"
        assert decide(chosen).model is None

    def test_any_name_of_the_catalogue_is_moved_to(self, tmp_path: Path) -> None:
        chosen = settings(tmp_path, model_name=OTHER)
        assert chosen.start_model == "lite"
        assert decide(chosen).model == OTHER

    def test_an_unknown_name_is_not_replaced(self, tmp_path: Path) -> None:
        chosen = settings(tmp_path, model_name="no-such-model")
        assert chosen.start_model == "no-such-model"
        assert decide(chosen).model is None

    def test_processes_keep_their_names_when_the_default_was_downloaded(
        self, tmp_path: Path
    ) -> None:
        model_registry(settings(tmp_path)).record_start()
        before = [
            spec.name for name in ("lite", NAME) for spec in indexers(settings(tmp_path), name)
        ]
        install(tmp_path, NAME)
        after = [
            spec.name for name in ("lite", NAME) for spec in indexers(settings(tmp_path), name)
        ]
        assert before == after == ["indexer-1", f"indexer-{NAME}-1"]


class TestDecision:
    def test_lite_that_was_named_stays(self, tmp_path: Path) -> None:
        found = decide(settings(tmp_path, model_name="lite"))
        assert found.model is None
        assert "MODEL_NAME is lite" in found.sentence
        assert f"models pull {NAME}" in found.sentence

    def test_a_user_who_declined_is_heard(self, tmp_path: Path) -> None:
        AdoptionFile(settings(tmp_path).adoption).decline()
        found = decide(settings(tmp_path))
        assert found.model is None
        assert "declined" in found.sentence

    @pytest.mark.parametrize(
        "step", [AdoptionStep.DONE, AdoptionStep.DECLINED, AdoptionStep.SUPERSEDED]
    )
    def test_what_has_ended_is_not_started_again(self, tmp_path: Path, step: AdoptionStep) -> None:
        """As after a rollback, and when the model was retired after it."""
        AdoptionFile(settings(tmp_path).adoption).write(status(step=step))
        assert decide(settings(tmp_path)).model is None

    @pytest.mark.parametrize("step", [AdoptionStep.FILLING, AdoptionStep.FAILED])
    def test_what_was_interrupted_is_resumed(self, tmp_path: Path, step: AdoptionStep) -> None:
        AdoptionFile(settings(tmp_path).adoption).write(status(step=step))
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_current(NAME)
        assert decide(settings(tmp_path)).model == NAME

    @pytest.mark.parametrize("back", [False, True])
    def test_a_stack_that_was_switched_is_left_alone(self, tmp_path: Path, back: bool) -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_active(OTHER)
            if back:
                change.state = change.state.with_active("lite")
        assert decide(settings(tmp_path)).model is None

    def test_a_stack_that_fills_another_model_is_left_alone(self, tmp_path: Path) -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_current(OTHER)
        assert decide(settings(tmp_path)).model is None

    def test_a_triton_elsewhere_is_left_alone(self, tmp_path: Path) -> None:
        assert decide(settings(tmp_path, triton_url="http://t:8000")).model is None


class FakeSupervisor:
    """Runs processes that do what they are told at each start."""

    def __init__(self, *runs: Callable[[], None]) -> None:
        self.processes: dict[str, SupervisedProcess] = {}
        self.runs = list(runs)
        self.started = 0

    def add(self, spec: ProcessSpec) -> None:
        process = SupervisedProcess(spec, ProcessState.READY)
        self.processes[spec.name] = process
        self.started += 1
        if self.runs:
            self.runs.pop(0)()
            process.state = ProcessState.DONE

    async def remove(self, name: str) -> None:
        del self.processes[name]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(adoption_status, "FIRST_WAIT_SECONDS", 0.001)


class TestKeeping:
    async def run(self, folder: Path, supervisor: FakeSupervisor, name: str | None) -> list[str]:
        said: list[str] = []
        chosen = settings(folder)
        async with asyncio.timeout(20):
            await adopting.keep_adopting(chosen, supervisor, Decision(name, ""), said.append)  # type: ignore[arg-type]
        return said

    async def test_it_tries_until_it_is_done_and_says_each_problem_once(
        self, tmp_path: Path
    ) -> None:
        file = AdoptionFile(settings(tmp_path).adoption)
        soon = datetime.now(UTC) + timedelta(seconds=0.05)

        def fail() -> None:
            file.write(status(problem="no network", retry_at=soon, failures=1))

        supervisor = FakeSupervisor(
            fail,
            fail,
            lambda: None,  # It crashed, and the status is of the attempt before.
            lambda: file.write(status(step=AdoptionStep.DONE)),
        )
        said = await self.run(tmp_path, supervisor, NAME)
        assert supervisor.started == 4
        assert supervisor.processes == {}
        assert len([line for line in said if "no network" in line]) == 1
        assert f"{NAME} answers searches now" in said[-1]

    async def test_one_that_crashes_before_it_says_anything_is_started_again(
        self, tmp_path: Path
    ) -> None:
        file = AdoptionFile(settings(tmp_path).adoption)
        supervisor = FakeSupervisor(
            lambda: None, lambda: file.write(status(step=AdoptionStep.DONE))
        )
        said = await self.run(tmp_path, supervisor, NAME)
        assert "ended early; the log is" in said[0]
        assert supervisor.started == 2

    async def test_declining_stops_its_process(self, tmp_path: Path) -> None:
        file, supervisor = AdoptionFile(settings(tmp_path).adoption), FakeSupervisor()
        keeping = asyncio.create_task(self.run(tmp_path, supervisor, NAME))
        while not supervisor.processes:
            await asyncio.sleep(0.001)
        file.decline()
        assert "was declined, lite stays" in (await keeping)[-1]
        assert supervisor.processes == {}
        found = file.read()
        assert found is not None
        assert found.step is AdoptionStep.DECLINED

    async def test_a_disk_that_is_full_does_not_end_the_stack(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        AdoptionFile(settings(tmp_path).adoption).write(status(problem="x"))

        def full(_: AdoptionFile, __: AdoptionStatus) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(AdoptionFile, "write", full)
        said = await self.run(tmp_path, FakeSupervisor(), NAME)
        assert "No space left" in said[0]

    async def test_a_new_start_does_not_wait_for_the_time_of_an_earlier_one(
        self, tmp_path: Path
    ) -> None:
        file = AdoptionFile(settings(tmp_path).adoption)
        hour = datetime.now(UTC) + timedelta(hours=1)
        file.write(status(problem="no network", retry_at=hour, failures=9))
        supervisor = FakeSupervisor(lambda: file.write(status(step=AdoptionStep.DONE)))
        await self.run(tmp_path, supervisor, NAME)
        assert supervisor.started == 1

    async def test_what_is_not_to_be_made_any_more_is_not_shown(self, tmp_path: Path) -> None:
        """MODEL_NAME=lite was set when a download was half done."""
        file = AdoptionFile(settings(tmp_path).adoption)
        file.write(status())
        supervisor = FakeSupervisor()
        assert await self.run(tmp_path, supervisor, None) == []
        assert (file.read(), supervisor.started) == (None, 0)
        file.write(status(step=AdoptionStep.DONE))
        await self.run(tmp_path, supervisor, None)
        assert file.read() is not None, "that it was made is still known"


class TestStatus:
    def test_progress_is_said_at_each_tenth(self) -> None:
        said: list[str] = []
        reporter = Reporter(said.append)
        for done in range(0, 101):
            reporter.report(status(bytes_done=done * 10**6, bytes_total=10**8))
        assert len(said) == 11
        assert said[1] == (
            f"{NAME} is being downloaded: 10 of 100 MB; lite answers searches meanwhile"
        )

    def test_what_is_told_as_news(self) -> None:
        assert status().is_news
        assert status(step=AdoptionStep.FAILED, problem="x").is_news
        assert status(step=AdoptionStep.DONE).is_news
        old = datetime.now(UTC) - 2 * NEWS
        assert not status(step=AdoptionStep.DONE, updated_at=old).is_news
        assert not status(step=AdoptionStep.DECLINED).is_news

    @pytest.mark.parametrize("step", list(AdoptionStep))
    def test_every_step_has_a_sentence(self, step: AdoptionStep) -> None:
        assert NAME in status(step=step, problem="p").sentence()
        assert (status(step=step).decline is None) == status(step=step).ended

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 1}'])
    def test_a_file_that_is_none_is_no_status(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "adoption.json").write_bytes(content)
        assert AdoptionFile(tmp_path / "adoption.json").read() is None


async def test_a_finite_process_is_not_restarted(tmp_path: Path) -> None:
    """Also if it is killed: whoever added it learns how it ended."""

    async def ready() -> bool:
        return True

    def spec(name: str, code: str, **more: Any) -> ProcessSpec:
        command = [sys.executable, "-c", code]
        return ProcessSpec(name, command, tmp_path / f"{name}.log", ready, **more)

    def everything_is_ready() -> None:
        supervisor.add(spec("ends", "import sys; sys.exit(3)", finite=True))
        supervisor.add(spec("killed", "import os; os.kill(os.getpid(), 9)", finite=True))

    supervisor = Supervisor(
        [spec("a", "import time; time.sleep(60)")], lambda _: None, lambda _: None
    )
    running = asyncio.create_task(supervisor.run(everything_is_ready))
    async with asyncio.timeout(20):
        while not {"ends", "killed"} <= supervisor.processes.keys() or any(
            supervisor.processes[name].state is not ProcessState.DONE for name in ("ends", "killed")
        ):
            await asyncio.sleep(0.05)
    ended = [supervisor.processes[name] for name in ("ends", "killed")]
    assert [each.restarts for each in ended] == [0, 0]
    assert [each.exit_status for each in ended] == [3, -9]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class TestDeclining:
    def decline(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models_adopt, "StackSettings", lambda: settings(folder))
        models_adopt.decline()

    def test_before_anything_runs(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        part = tmp_path / "cache" / "hub" / f"immich-app--{NAME}" / "c" / "config.json.part"
        part.parent.mkdir(parents=True)
        part.touch()
        self.decline(tmp_path, monkeypatch)
        assert AdoptionFile(settings(tmp_path).adoption).declined
        assert decide(settings(tmp_path)).model is None
        assert not part.exists()
        assert "lite stays" in capsys.readouterr().out

    def test_when_it_is_too_late(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_active(NAME)
        with pytest.raises(StackError, match="models rollback"):
            self.decline(tmp_path, monkeypatch)
        assert not AdoptionFile(settings(tmp_path).adoption).declined


class TestTestsStayHere:
    """No test may reach the real hub."""

    @pytest.mark.slow
    def test_what_a_test_starts_finds_no_hub(self, tmp_path: Path) -> None:
        own = {"CACHE_DIR": str(tmp_path / "cache"), "STATE_DIR": str(tmp_path / "state")}
        done = run_image_search(own, "models", "adopt", NAME, check=False)
        assert done.returncode == 1
        assert "refused" in done.stdout
        pulled = run_image_search(own, "models", "pull", NAME, check=False)
        assert "error: list immich-app" in pulled.stderr
        assert NO_HUB.startswith("http://127.0.0.1:")

    def test_the_stacks_of_tests_stay_with_lite(self, tmp_path: Path) -> None:
        environment = stack_environment(tmp_path, tmp_path)
        assert environment["MODEL_NAME"] == FALLBACK_MODEL
