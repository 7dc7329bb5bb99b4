"""The configuration reference: complete, and as the code is."""

import re
from importlib import import_module

import pytest

from adapters.settings import EnvironmentSettings
from cli.configuration import COMMANDS, PROCESSES, REFERENCE, description, reference
from tests.conftest import ROOT

PACKAGES = (
    *("adapters", "imaging", "models", "analytics"),
    *("producers", "consumers", "gateway", "stack", "cli"),
)


def all_settings() -> set[type[EnvironmentSettings]]:
    """Every class of settings there is."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("settings.py"):
            import_module(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
    found: set[type[EnvironmentSettings]] = set()
    waiting: list[type[EnvironmentSettings]] = [EnvironmentSettings]
    while waiting:
        below = [each for each in waiting.pop().__subclasses__() if not local(each)]
        found.update(below)
        waiting.extend(below)
    return found


def local(settings: type[EnvironmentSettings]) -> bool:
    """Whether it is a test's own."""
    return settings.__module__.startswith("tests.")


def name_of(settings: type[EnvironmentSettings]) -> str:
    return settings.__name__


ALL = sorted(all_settings(), key=name_of)


@pytest.mark.slow
def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), (
        "docs/configuration.md is out of date: run `python -m cli.configuration`"
    )


@pytest.mark.slow
@pytest.mark.parametrize("settings", ALL)
def test_every_setting_has_a_description(settings: type[EnvironmentSettings]) -> None:
    for name in settings.model_fields:
        assert description(settings, name)


def test_a_setting_without_a_description_is_found() -> None:
    class Bare(EnvironmentSettings):
        """Settings."""

        described: int = 1
        """A text."""
        silent: int = 2

    assert description(Bare, "described") == "A text."
    with pytest.raises(ValueError, match="silent has no description"):
        description(Bare, "silent")


@pytest.mark.slow
def test_every_setting_is_in_the_reference() -> None:
    page = reference()
    for settings in ALL:
        for name in settings.model_fields:
            assert f"| `{name.upper()}` |" in page, f"{settings.__name__}.{name}"


def test_every_variable_that_is_read_elsewhere_is_in_the_reference() -> None:
    read = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"os\.environ(?:\.get\(|\[)\"([A-Z_]+)\"", path.read_text())
    }
    known = {name.upper() for each in ALL for name in each.model_fields}
    by_libraries = {"HF_TOKEN"}
    of_the_system = {"PATH", "TERM"}
    assert read - known - of_the_system == set(COMMANDS) - by_libraries


@pytest.mark.slow
def test_each_heading_is_of_a_process() -> None:
    page = reference()
    assert all(f"## {heading}\n" in page for heading in PROCESSES)
