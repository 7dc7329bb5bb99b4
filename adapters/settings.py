"""What the settings of all processes have in common: where the servers are, and how a bad value is
reported.

Each setting is the environment variable of its name in upper case, for instance `WEAVIATE_URL`. The
docstring of a field is its description in the configuration reference (`docs/configuration.md`).
Settings are never read at import: only a `__main__` or a factory makes them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class BadSettings(ValueError):
    """A setting has a value that is not allowed: one line for each, with the variable's name and
    what is wrong."""


class EnvironmentSettings(BaseSettings):
    """Base: frozen, from the environment alone.

    Raises:
        BadSettings: when made, for a value that is not allowed.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BadSettings(_lines(error)) from None
        except SettingsError as error:
            raise BadSettings(str(error)) from None


def _lines(error: ValidationError) -> str:
    """What is wrong, without the values: some of them are secrets."""
    problems = [
        each
        for each in error.errors(include_url=False, include_input=False)
        # A default that depends on another value, which is the one that is bad.
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
def told_briefly() -> Iterator[None]:
    """End the process with status 1 and the message alone, instead of a traceback, if a setting is
    bad. For the outermost block of every program."""
    try:
        yield
    except BadSettings as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)  # noqa: T201
        sys.exit(1)


class ServerSettings(EnvironmentSettings):
    """Where the three servers are, which model is used, and how a process reports its health."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """Addresses of Kafka's brokers, `host:port`, separated by commas."""
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    """Replicas of each topic that is created."""
    kafka_timeout: Seconds = 30.0
    """Seconds after which a publication is given up and made again; a broker restarts in less."""
    images_partitions: Annotated[int, Field(ge=1)] = 12
    """Partitions of the topics `images` and `images.indexed` when they are created."""
    weaviate_url: str = "http://127.0.0.1:8080"
    """Weaviate's HTTP address."""
    weaviate_grpc_host: str | None = None
    """Weaviate's gRPC host; that of `WEAVIATE_URL` if none is set."""
    weaviate_grpc_port: Port = 50051
    """Weaviate's gRPC port."""
    weaviate_api_key: SecretStr | None = None
    """Key that Weaviate demands, if it does."""
    triton_url: str = "http://127.0.0.1:8000"
    """Triton's HTTP address."""
    triton_timeout: Seconds = 30.0
    """Seconds after which a request to Triton is given up."""
    triton_concurrency: Annotated[int, Field(ge=1)] = 8
    """Requests that one process sends to Triton at once."""
    model_name: str = "lite"
    """The model that pictures are indexed with; a search uses the model that is active."""
    retention_days: Annotated[int, Field(ge=0)] = 0
    """Days that searches and ratings are kept, in the log and in the event lake; 0 for ever."""
    ready_file: Path | None = None
    """Touched when the process is ready; its modification time is the process's heartbeat."""
    stuck_seconds: Seconds = 180.0
    """A process that has work, waits for no server that is away, and makes no progress for this
    many seconds ends itself, to be started again. More than any one call to a server may take."""
