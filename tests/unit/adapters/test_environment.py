"""How settings read the environment."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr

from adapters.settings import BadSettings, EnvironmentSettings
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


@pytest.mark.parametrize("value", ["", "0", "many", "[1]"])
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_NUMBER", value)
    with pytest.raises(BadSettings) as raised:
        Example()
    assert str(raised.value).startswith("SOME_NUMBER: ")
    assert "\n" not in str(raised.value)


def test_several_values_are_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", f"{'a' * 16}, {'b' * 16}")
    monkeypatch.setenv("IGNORE_PATTERNS", "*.tmp:[ab].jpg")
    monkeypatch.setenv("IMAGES_SOURCES", "nas=file:///mnt/nas cloud=s3://bucket/photos")
    gateway = GatewaySettings()
    assert [key.get_secret_value() for key in gateway.api_keys] == ["a" * 16, "b" * 16]
    assert all(isinstance(key, SecretStr) for key in gateway.api_keys)
    assert [source.name for source in gateway.images_sources] == ["nas", "cloud"]
    assert WatcherSettings().ignore_patterns == ("*.tmp", "[ab].jpg")
