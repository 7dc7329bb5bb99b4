"""Inputs that were findings once, and the examples that a fuzzing run starts from."""

from pathlib import Path

import pytest

from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_an_input_is_understood_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_each_target_has_seeds(target: str) -> None:
    assert list((SEEDS / target).iterdir())
