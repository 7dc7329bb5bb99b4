"""Attempts that fail: each is reported, and the wait grows until one gets further."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import Rejected, Unavailable
from cli import models_files
from models import adoption_status, hub
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from models.hub_errors import hub_errors
from models.store import ModelStore
from stack import adopting
from stack.adopting import Decision, keep_adopting
from stack.errors import StackError
from stack.install import memory
from stack.settings import PREFERRED_MODEL as NAME
from stack.settings import StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess
from tests.support.adoption_world import World


async def waits(world: World, attempts: int) -> list[float]:
    found = []
    for _ in range(attempts):
        status = await world.attempt()
        assert status.problem
        assert status.retry_at is not None
        found.append((status.retry_at - status.updated_at).total_seconds())
    return found


def damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download of one file ends with another content than the hub states."""
    listing = hub.listing

    def other(*arguments: Any, **more: Any) -> hub.RepositoryFiles:
        listed = listing(*arguments, **more)
        wrong = hub.HubFile(listed.files["visual/model.onnx"].size, "0" * 40, "0" * 64)
        return hub.RepositoryFiles(
            listed.repository,
            listed.commit,
            {**listed.files, "visual/model.onnx": wrong},
            listed.endpoint,
        )

    monkeypatch.setattr(hub, "listing", other)


def not_installable(_: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ModelStore, "add", add)


def a_bug(_: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(*_: object) -> None:
        raise ValueError("nobody expected this")

    monkeypatch.setattr(ModelStore, "add", add)


def too_little_memory(_: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "problem", "step"),
    [
        (damage, "is damaged", AdoptionStep.DOWNLOADING),
        (not_installable, "Read-only file system", AdoptionStep.INSTALLING),
        (a_bug, "ValueError: nobody expected this", AdoptionStep.INSTALLING),
        (too_little_memory, "GB of memory to be converted", AdoptionStep.INSTALLING),
    ],
)
async def test_a_failure_that_repeats_is_retried_ever_more_rarely(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: Callable[[World, pytest.MonkeyPatch], None],
    problem: str,
    step: AdoptionStep,
) -> None:
    with monkeypatch.context() as patched:
        cause(world, patched)
        found = await waits(world, 4)
        status = world.file.read()
    # The first attempt may get further than none before it.
    assert found == pytest.approx([10, 20, 40, 80], abs=1)
    assert status is not None
    assert status.step is step
    assert problem in status.problem
    assert ("Traceback" in caplog.text) is (cause is a_bug)
    assert await world.answering() == "lite"
    assert (await world.attempt()).step is AdoptionStep.DONE, "and is forgotten afterwards"


@pytest.mark.slow
async def test_an_attempt_that_gets_further_is_followed_by_the_next_at_once(world: World) -> None:
    world.file.write(
        AdoptionStatus(
            model=NAME, instead_of="lite", step=AdoptionStep.DOWNLOADING, failures=9, problem="x"
        )
    )
    world.cannot_load = "not enough memory"
    assert await waits(world, 2) == pytest.approx([10, 20], abs=1)


@pytest.mark.slow
async def test_a_model_that_memory_does_not_hold_is_not_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cannot_load = "x"
    await world.attempt()
    world.cannot_load = ""
    with monkeypatch.context() as patched:
        too_little_memory(world, patched)
        status = await world.attempt()
    assert "GB of memory to be loaded" in status.problem
    assert NAME not in world.served
    assert (await world.attempt()).step is AdoptionStep.DONE


@pytest.mark.slow
async def test_a_step_does_not_show_the_problem_of_the_attempt_before(world: World) -> None:
    world.cannot_load = "not enough memory"
    await world.attempt()
    world.cannot_load = ""
    world.written.clear()
    await world.attempt()
    loading = next(each for each in world.written if each.step is AdoptionStep.LOADING)
    assert (loading.problem, loading.retry_at) == ("", None)


@pytest.mark.parametrize(
    "error",
    [json.JSONDecodeError("Expecting value", "<html>", 0), KeyError("id"), TypeError("str")],
)
def test_an_answer_of_a_sign_in_page_is_no_answer_of_the_hub(error: Exception) -> None:
    with pytest.raises(Unavailable, match="a proxy or a sign-in page"), hub_errors("list x"):
        raise error


async def test_behind_a_sign_in_page_it_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object, **__: object) -> None:
        json.loads("<html>log in</html>")

    with monkeypatch.context() as patched:
        patched.setattr("models.hub.HfApi.model_info", answer)
        assert await waits(world, 2) == pytest.approx([10, 20], abs=1)
        status = world.file.read()
    assert status is not None
    assert "sign-in page" in status.problem


@pytest.mark.slow
async def test_what_another_process_installed_meanwhile_is_not_kept_twice(world: World) -> None:
    """`models pull` was quicker, and the parts of the own download are left."""
    world.cannot_load = "x"
    await world.attempt()
    part = hub.folder_of(world.settings.cache / "hub", f"immich-app/{NAME}") / "c" / "x.part"
    part.parent.mkdir(parents=True)
    part.touch()
    world.cannot_load = ""
    assert (await world.attempt()).step is AdoptionStep.DONE
    assert not part.exists()


async def test_the_download_of_a_change_that_a_user_ended_is_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        not_installable(world, patched)
        await world.attempt()
    folder = hub.folder_of(world.settings.cache / "hub", f"immich-app/{NAME}")
    assert folder.exists()
    world.file.decline()
    assert (await world.attempt()).step is AdoptionStep.DECLINED
    assert not folder.exists()


async def test_a_cache_that_cannot_be_written_is_one_line_of_pull(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.settings.cache
    cache.mkdir(exist_ok=True)
    (cache / "hub").write_text("not a folder")
    monkeypatch.setattr("stack.settings.StackSettings", lambda: world.settings)
    with pytest.raises(StackError, match="Not a directory"):
        await asyncio.to_thread(models_files.pull, NAME)


class TestPins:
    @pytest.mark.slow
    async def test_a_file_that_is_pinned_must_have_that_content(
        self, world: World, tmp_path: Path
    ) -> None:
        url, name = world.server.url, "visual/model.onnx"
        listed = hub.listing("immich-app/tiny", "main", url)
        stated = str(listed.files[name].sha256)
        pinned = {name: stated}
        assert hub.download("immich-app/tiny", "main", tmp_path / "a", url, pinned=pinned)
        for wrong in {name: "0" * 64}, {"visual/other.onnx": stated}:
            with pytest.raises(Rejected, match="is not the file that the catalogue names"):
                hub.listing("immich-app/tiny", "main", url, pinned=wrong)

    async def test_a_small_file_is_compared_with_its_pin_too(
        self, world: World, tmp_path: Path
    ) -> None:
        url, name = world.server.url, "config.json"
        assert hub.listing("immich-app/tiny", "main", url).files[name].sha256 is None
        with pytest.raises(Unavailable, match="damaged"):
            hub.download("immich-app/tiny", "main", tmp_path / "a", url, pinned={name: "0" * 64})

    async def test_a_commit_stands_for_itself(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Other:
            sha = "f" * 40

        monkeypatch.setattr("models.hub.HfApi.model_info", lambda *_, **__: Other())
        with pytest.raises(Rejected, match="gives commit f"):
            hub.listing("immich-app/tiny", "0" * 40, world.server.url)


class Killed:
    """A supervisor whose processes are killed, except the last."""

    def __init__(self, file: AdoptionFile, kills: int) -> None:
        self.processes: dict[str, SupervisedProcess] = {}
        self.file, self.kills = file, kills
        self.seen: list[AdoptionStatus | None] = []

    def add(self, spec: ProcessSpec) -> None:
        self.seen.append(self.file.read())
        process = SupervisedProcess(spec, ProcessState.DONE, exit_status=-9)
        if len(self.seen) > self.kills:
            known = self.seen[-1]
            assert known is not None
            self.file.write(known.ended_by(AdoptionStep.DONE, loaded=True))
            process.exit_status = 0
        self.processes[spec.name] = process

    async def remove(self, name: str) -> None:
        del self.processes[name]


async def test_a_process_that_is_killed_counts_as_a_failed_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopting, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(adoption_status, "FIRST_WAIT_SECONDS", 0.01)
    settings = StackSettings(state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")
    supervisor = Killed(AdoptionFile(settings.adoption), kills=3)
    said: list[str] = []
    async with asyncio.timeout(20):
        await keep_adopting(settings, supervisor, Decision(NAME, ""), said.append)  # type: ignore[arg-type]
    failed = [each for each in supervisor.seen if each is not None]
    assert [each.failures for each in failed] == [1, 2, 3]
    times = [each.retry_at - each.updated_at for each in failed if each.retry_at is not None]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert "was killed by SIGKILL, perhaps because the machine was short of memory" in said[0]
