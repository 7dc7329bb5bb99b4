"""The settings that all processes share: the servers' addresses, and how a bad value is reported.

Each setting is the environment variable of its name in upper case, for instance `WEAVIATE_URL`. The
docstring of a field is its description in the configuration reference (`docs/configuration.md`).
A variable whose value is empty counts as not set. Settings are never read at import: only a
`__main__` or a factory creates them.

They are pydantic models that read the environment themselves. pydantic-settings would do it too,
but importing it takes longer than everything else that a light command does.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from adapters.addresses import (
    check_broker_addresses,
    check_folder_url,
    check_host,
    check_http_address,
)
from adapters.naming import check_model_name

Port = Annotated[int, Field(ge=1, le=65535)]
LONGEST_SECONDS: Final = 1_000_000.0
"""Eleven days: less than what any library or operating system takes as a time limit."""
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
SecondsOrZero = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
Host = Annotated[str, AfterValidator(check_host)]
HttpAddress = Annotated[str, AfterValidator(check_http_address)]
BrokerAddresses = Annotated[str, AfterValidator(check_broker_addresses)]
FolderUrl = Annotated[str, AfterValidator(check_folder_url)]
ModelName = Annotated[str, AfterValidator(check_model_name)]


class BadSettings(ValueError):
    """A setting has a value that is not allowed: one line for each, with the variable's name and
    what is wrong."""


class EnvironmentSettings(BaseModel):
    """Base of all settings: frozen, read only from the environment.

    A value given by keyword takes precedence over the variable. The case of a variable's name does
    not matter. A variable whose value is empty counts as not set. A value is always one text: a
    field of several parts splits it in a validator. A number is finite.

    Raises:
        BadSettings: when created, for a value that is not allowed.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_default=True, allow_inf_nan=False
    )

    def __init__(self, **values: Any) -> None:
        variables = {name.lower(): value for name, value in os.environ.items() if value}
        found = {name: variables[name] for name in type(self).model_fields if name in variables}
        try:
            super().__init__(**{**found, **values})
        except ValidationError as error:
            raise BadSettings(_lines(error)) from None


def _lines(error: ValidationError) -> str:
    """What is wrong, without the values: some of them are secrets."""
    problems = [
        each
        for each in error.errors(include_url=False, include_input=False)
        # This default depends on another value, whose own problem is listed.
        if each["type"] != "default_factory_not_called"
    ]
    return "\n".join(
        ": ".join(
            [
                *(str(part).upper() for part in problem["loc"][:1]),
                problem["msg"].removeprefix("Value error, "),
            ]
        )
        for problem in problems
    )


@contextmanager
def exit_on_bad_settings() -> Iterator[None]:
    """Exit with status 1 and one line per bad setting, without a traceback.

    For the outermost block of every program.
    """
    try:
        yield
    except BadSettings as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)  # noqa: T201
        sys.exit(1)


class ServerSettings(EnvironmentSettings):
    """Where the three servers are, which model is used, and how a process reports its health."""

    kafka_bootstrap_servers: BrokerAddresses = "127.0.0.1:9092"
    """Addresses of Kafka's brokers, `host:port`, separated by commas."""
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    """Number of replicas of each topic that is created."""
    kafka_timeout: Seconds = 30.0
    """Seconds after which publishing to Kafka is retried; more than a broker needs to restart."""
    images_partitions: Annotated[int, Field(ge=1)] = 12
    """Number of partitions with which the topics `images` and `images.indexed` are created."""
    weaviate_url: HttpAddress = "http://127.0.0.1:8080"
    """Weaviate's HTTP address."""
    weaviate_grpc_host: Host | None = None
    """Weaviate's gRPC host; by default the host of `WEAVIATE_URL`."""
    weaviate_grpc_port: Port = 50051
    """Weaviate's gRPC port."""
    weaviate_api_key: SecretStr | None = None
    """API key for Weaviate, if it requires one."""
    triton_url: HttpAddress = "http://127.0.0.1:8000"
    """Triton's HTTP address."""
    triton_timeout: Seconds = 30.0
    """Seconds after which a request to Triton fails."""
    triton_concurrency: Annotated[int, Field(ge=1)] = 8
    """Maximum number of requests to Triton in flight, per process."""
    model_name: ModelName = "lite"
    """The model with which pictures are indexed; searches use the active model."""
    retention_days: Annotated[int, Field(ge=0)] = 0
    """Days for which Kafka and the event lake store searches and ratings; 0 for ever."""
    ready_file: Path | None = None
    """File that is touched once the process is ready; its modification time is the heartbeat."""
    stuck_seconds: Seconds = 180.0
    """A process that has work but makes no progress for this many seconds exits, to be restarted.
    Waiting for an unavailable server does not count. Must exceed the time limit of every call."""
