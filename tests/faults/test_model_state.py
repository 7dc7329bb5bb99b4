"""The state file of models is changed by one process at a time, and recovered when damaged."""

import multiprocessing
from pathlib import Path

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from models import registry as models
from models.errors import RegistryBusy
from stack.settings import StackSettings
from stack.triton_models import model_registry


def settings(state: Path) -> StackSettings:
    return StackSettings(state_dir=state, model_name="lite")


def keep_current(state: Path, first: int) -> None:
    for number in range(first, first + 25):
        with model_registry(settings(state)).changing() as change:
            change.state = change.state.with_current(f"m{number}")


@pytest.mark.slow
def test_concurrent_changes_are_all_kept(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=keep_current, args=(tmp_path, 100 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(model_registry(settings(tmp_path)).read().current) == 1 + 75


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with model_registry(settings(tmp_path)).changing() as change:
            change.state = change.state.with_current("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model_registry(settings(tmp_path)).read().current == ("lite",)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"active": "a"', b"\0\0\0", b"[]", b"null"])
def test_a_truncated_state_file_is_replaced_by_the_backup(tmp_path: Path, torn: bytes) -> None:
    chosen = settings(tmp_path)
    for name in ("a", "b"):
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_current(name).with_active(name)
    chosen.model_state.write_bytes(torn)
    assert model_registry(chosen).read().current == ("lite", "a")
    assert chosen.active_model == "a"
    with model_registry(chosen).changing() as change:
        change.state = change.state.with_current("c")
    assert model_registry(chosen).read().current == ("lite", "a", "c")


def test_the_state_is_derived_from_weaviate_when_both_files_are_truncated(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    with model_registry(chosen).changing():
        pass
    spec = model_registry(chosen).store().spec("lite")
    (tmp_path / "weaviate" / f"images_lite_{spec.version}").mkdir(parents=True)
    chosen.model_state.write_bytes(b"{")
    chosen.model_state_before.write_bytes(b"{")
    assert model_registry(chosen).read().current == ("lite",)
    assert chosen.active_model == "lite"


def test_a_lost_state_file_is_replaced_by_the_backup(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    for name in ("a", "b"):
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_current(name).with_active(name)
    chosen.model_state.unlink()
    assert model_registry(chosen).read().current == ("lite", "a")
    assert chosen.active_model == "a"
    chosen.model_state_before.unlink()
    spec = model_registry(chosen).store().spec("lite")
    (tmp_path / "weaviate" / f"images_lite_{spec.version}").mkdir(parents=True)
    assert model_registry(chosen.model_copy(update={"model_name": "other"})).read().current == (
        "lite",
    )


def test_an_unreadable_state_file_is_no_error(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    chosen.model_state.mkdir(parents=True)
    assert model_registry(chosen).read().current == ("lite",)
    assert chosen.active_model == "lite"


def test_a_change_without_effect_keeps_the_backup(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    for name in ("a", "b", "b"):
        with model_registry(chosen).changing() as change:
            change.state = change.state.with_current(name)
    assert "b" not in chosen.model_state_before.read_text()


async def agreeing(chosen: StackSettings, index: FakeImageIndex) -> tuple[str, str | None]:
    state = await model_registry(chosen).agree_with_alias(index)
    assert model_registry(chosen).read() == state
    return state.active, state.previous


async def test_the_alias_decides_which_model_is_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_spec: ModelSpec
) -> None:
    """A switch was killed when it had moved the alias and nothing else, or the file was lost."""
    chosen, index = settings(tmp_path), FakeImageIndex()
    assert await agreeing(chosen, index) == ("lite", None), "it says nothing yet"
    stored = {"lite": model_registry(chosen).store().spec("lite"), "small": small_spec}

    class Store:
        def names(self) -> list[str]:
            return sorted(stored)

        def spec(self, name: str) -> ModelSpec:
            return stored[name]

    monkeypatch.setattr(models.ModelRegistry, "store", lambda _: Store())
    await index.activate(await index.ensure_collection(small_spec))
    assert await agreeing(chosen, index) == ("small", "lite")
    assert set(model_registry(chosen).read().current) == {"lite", "small"}
    assert await agreeing(chosen, index) == ("small", "lite")
    foreign = small_spec.model_copy(update={"name": "foreign"})
    await index.activate(await index.ensure_collection(foreign))
    assert await agreeing(chosen, index) == ("small", "lite"), "it cannot be served from here"


def test_a_lock_that_is_held_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "LOCK_SECONDS", 0.1)
    with (
        model_registry(settings(tmp_path)).changing(),
        pytest.raises(RegistryBusy, match="another command"),
        model_registry(settings(tmp_path)).changing(),
    ):
        pass
