"""How settings read the environment."""

import threading
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr

from adapters.settings import LONGEST_SECONDS, BadSettings, EnvironmentSettings
from cli.configuration import PROCESSES
from gateway.settings import GatewaySettings
from producers.settings import WatcherSettings


class Example(EnvironmentSettings):
    some_number: Annotated[int, Field(ge=1)] = 3
    some_folder: Path | None = None
    some_flag: bool = False


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Example.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_variable_of_any_case_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Example() == Example(some_number=3)
    monkeypatch.setenv("SOME_NUMBER", "7")
    monkeypatch.setenv("some_flag", "true")
    found = Example()
    assert (found.some_number, found.some_flag, found.some_folder) == (7, True, None)


def test_a_value_given_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NUMBER", "none")
    assert Example(some_number=5).some_number == 5
    with pytest.raises(BadSettings, match=r"^SOME_NUMBER: "):
        Example()


@pytest.mark.parametrize("value", ["0", "many", "[1]", " "])
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_NUMBER", value)
    with pytest.raises(BadSettings) as raised:
        Example()
    assert str(raised.value).startswith("SOME_NUMBER: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings", [each for of_process in PROCESSES.values() for each in of_process]
)
def test_an_empty_value_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, settings: type[EnvironmentSettings]
) -> None:
    for name in settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    without = settings()
    for name in settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert settings() == without


def numbers(settings: type[EnvironmentSettings]) -> list[str]:
    return [name for name, field in settings.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (settings, name)
        for of_process in PROCESSES.values()
        for settings in of_process
        for name in numbers(settings)
    ],
)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e9", "1e300", "-1"])
def test_every_number_is_finite_and_bounded(
    monkeypatch: pytest.MonkeyPatch, settings: type[EnvironmentSettings], name: str, value: str
) -> None:
    monkeypatch.setenv(name.upper(), value)
    with pytest.raises(BadSettings, match=f"^{name.upper()}: [^\n]+$"):
        settings()


def test_no_number_is_hidden_in_another_type() -> None:
    for of_process in PROCESSES.values():
        for settings in of_process:
            found = {name for name, field in settings.model_fields.items() if "float" in str(field)}
            assert found == {*numbers(settings)}


def test_the_longest_time_can_be_waited_for() -> None:
    assert LONGEST_SECONDS < threading.TIMEOUT_MAX
    assert LONGEST_SECONDS * 1000 < 2**31  # Kafka's time limits are 32-bit milliseconds.


def test_several_values_are_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", f"{'a' * 16}, {'b' * 16}")
    monkeypatch.setenv("IGNORE_PATTERNS", "*.tmp:[ab].jpg")
    monkeypatch.setenv("IMAGES_SOURCES", "nas=file:///mnt/nas cloud=s3://bucket/photos")
    gateway = GatewaySettings()
    assert [key.get_secret_value() for key in gateway.api_keys] == ["a" * 16, "b" * 16]
    assert all(isinstance(key, SecretStr) for key in gateway.api_keys)
    assert [source.name for source in gateway.images_sources] == ["nas", "cloud"]
    assert WatcherSettings().ignore_patterns == ("*.tmp", "[ab].jpg")
