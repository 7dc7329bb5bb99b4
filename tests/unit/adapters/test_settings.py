"""A bad value of a setting is reported in one line that names the variable, by every command."""

import os
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import ByteSize

from adapters.settings import BadSettings, EnvironmentSettings
from tests.conftest import ROOT
from tests.unit.docs.test_configuration import ALL

PLAIN = (int, float, bool, ByteSize)
"""Types that pydantic checks."""

BAD = {
    "allowed_hosts": "https://photos.example",
    "api_keys": "short",
    "cors_origins": "https://photos.example:abc",
    "gateway_host": "not a host",
    "images_sources": "nas=foo://x",
    "jwt_secret": "short",
    "kafka_bootstrap_servers": "h:abc",
    "kafka_heap": "much",
    "lake_url": "foo://x",
    "log_level": "LOUD",
    "model_name": "../lite",
    "oidc_issuer": "https://h:abc",
    "triton_url": "http://h:abc",
    "weaviate_grpc_host": "http://h",
    "weaviate_url": "http://h:abc",
}
"""Setting -> a value that is not allowed."""

ANY_VALUE = {
    "adoption_status_file",
    "analytics_group",
    "cache_dir",
    "client_salt",
    "ignore_patterns",
    "images_dir",
    "jwt_secret_file",
    "models_dir",
    "oidc_audience",
    "ready_file",
    "state_dir",
    "status_file",
    "thumbnails_dir",
    "watcher_status_file",
    "weaviate_api_key",
    "weaviate_binary",
}
"""Settings that may be any text or path."""

MORE_BAD = [
    ("weaviate_url", "nonsense"),
    ("weaviate_url", "http://"),
    ("weaviate_url", "http://h:0"),
    ("weaviate_url", "http://h:70000"),
    ("weaviate_url", "http://[::1"),
    ("weaviate_url", "ftp://h"),
    ("triton_url", "nonsense"),
    ("triton_url", " "),
    ("kafka_bootstrap_servers", " "),
    ("kafka_bootstrap_servers", "a:1,"),
    ("kafka_bootstrap_servers", "http://h:9092"),
    ("lake_url", " "),
    ("lake_url", "simplecache::foo://x"),
    ("lake_url", "gs://x"),
    ("images_sources", "nas"),
    ("model_name", " "),
]
GOOD = [
    ("weaviate_url", "https://weaviate.example/"),
    ("weaviate_url", "http://[::1]:8080"),
    ("triton_url", "http://my_triton:8000"),
    ("kafka_bootstrap_servers", "a:1, b,[::1]:9092"),
    ("gateway_host", "::"),
    ("lake_url", "s3://bucket/lake"),
    ("lake_url", "file:///lake"),
    ("lake_url", "my lake"),
    ("images_sources", "nas=file:///mnt/nas photos=s3://photos"),
    ("jwt_secret", ""),
    ("jwt_secret", "s" * 32),
    ("cors_origins", "https://photos.example:8443 *"),
]


def types(annotation: Any) -> set[Any]:
    """The types of a setting, without None and what restricts them."""
    if get_origin(annotation) in (Union, UnionType):
        return {found for each in get_args(annotation) for found in types(each)}
    return {annotation} - {type(None)}


def settings_with(name: str) -> list[type[EnvironmentSettings]]:
    return [each for each in ALL if name in each.model_fields]


def test_it_is_decided_for_each_setting_which_values_are_allowed() -> None:
    fields = {name: field for each in ALL for name, field in each.model_fields.items()}
    others = {name for name, field in fields.items() if not types(field.annotation) <= {*PLAIN}}
    assert others == {*BAD, *ANY_VALUE}
    assert not {*BAD} & ANY_VALUE


@pytest.mark.parametrize(("name", "value"), [*BAD.items(), *MORE_BAD])
def test_a_bad_value_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name.upper(), value)
    for settings in settings_with(name):
        more = {"oidc_audience": "photos"} if name == "oidc_issuer" else {}
        with pytest.raises(BadSettings) as caught:
            settings(**more)
        assert str(caught.value).startswith(f"{name.upper()}: ")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_good_value_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name.upper(), value)
    for settings in settings_with(name):
        settings()


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", "http://user:hidden@h:abc")
    for settings in settings_with("triton_url"):
        with pytest.raises(BadSettings) as caught:
            settings()
        assert "hidden" not in str(caught.value)


SHORT_SECRET = "A file with too short a secret."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        (["gateway"], "JWT_SECRET", "short"),
        (["gateway"], "JWT_SECRET_FILE", SHORT_SECRET),
        (["gateway"], "JWT_SECRET_FILE", "/proc/none/secret"),
        (["consumers", "analytics"], "LAKE_URL", "foo://x"),
        (["consumers", "indexing"], "TRITON_URL", "nonsense"),
        (["producers"], "IMAGES_SOURCES", "nas=foo://x"),
        (["cli", "analytics", "sql", "SELECT 1"], "LAKE_URL", "foo://x"),
        (["cli", "analytics", "report"], "LAKE_URL", "foo://x"),
        (["cli", "dlq", "list"], "KAFKA_BOOTSTRAP_SERVERS", "h:abc"),
        (["cli", "index", "audit"], "WEAVIATE_URL", "http://h:abc"),
        (["cli", "index", "audit"], "TRITON_URL", "nonsense"),
        (["cli", "index", "audit"], "WEAVIATE_GRPC_HOST", "http://h"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else None,
)
def test_a_command_ends_with_the_line(
    tmp_path: Path, command: list[str], name: str, value: str
) -> None:
    if value == SHORT_SECRET:
        file = tmp_path / "jwt.secret"
        file.write_text("short")
        value = str(file)
    environment = {
        each: text
        for each, text in os.environ.items()
        if each not in ("JWT_SECRET", "JWT_SECRET_FILE")
    }
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**environment, "STATE_DIR": str(tmp_path / "state"), name: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}: ")
    assert len(done.stderr.splitlines()) == 1
