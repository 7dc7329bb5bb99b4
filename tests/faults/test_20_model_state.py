"""The file of which models are served: changed by one at a time, and never torn for good."""

import multiprocessing
from pathlib import Path

import pytest

from stack import models
from stack.errors import StackError
from stack.models import changing_state, read_state
from stack.settings import StackSettings


def settings(state: Path) -> StackSettings:
    return StackSettings(state_dir=state, model_name="lite")


def feed(state: Path, first: int) -> None:
    for number in range(first, first + 25):
        with changing_state(settings(state)) as change:
            change.state = change.state.feeding(f"m{number}")


def test_changes_of_several_commands_are_all_kept(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=feed, args=(tmp_path, 100 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(read_state(settings(tmp_path)).fed) == 1 + 75


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with changing_state(settings(tmp_path)) as change:
            change.state = change.state.feeding("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read_state(settings(tmp_path)).fed == ("lite",)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"active": "a"', b"\0\0\0", b"[]", b"null"])
def test_a_torn_file_ends_nothing(tmp_path: Path, torn: bytes) -> None:
    chosen = settings(tmp_path)
    for name in ("a", "b"):
        with changing_state(chosen) as change:
            change.state = change.state.feeding(name).activated(name)
    chosen.model_state.write_bytes(torn)
    assert read_state(chosen).fed == ("lite", "a")
    assert chosen.active_model == "a"
    with changing_state(chosen) as change:
        change.state = change.state.feeding("c")
    assert read_state(chosen).fed == ("lite", "a", "c")


def test_where_both_are_torn_what_weaviate_holds_tells(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    with changing_state(chosen):
        pass
    spec = models.store(chosen).spec("lite")
    (tmp_path / "weaviate" / f"images_lite_{spec.version}").mkdir(parents=True)
    chosen.model_state.write_bytes(b"{")
    chosen.model_state_before.write_bytes(b"{")
    assert read_state(chosen).fed == ("lite",)
    assert chosen.active_model == "lite"


def test_a_lock_that_is_held_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "LOCK_SECONDS", 0.1)
    with (
        changing_state(settings(tmp_path)),
        pytest.raises(StackError, match="another command"),
        changing_state(settings(tmp_path)),
    ):
        pass
