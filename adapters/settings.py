"""Environment to frozen settings. Never read at import: only a `__main__` or a factory calls these.

Each setting is the upper-case environment variable of its name, for instance `WEAVIATE_URL`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class EnvironmentSettings(BaseSettings):
    """Base: frozen, from the environment alone."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class ServerSettings(EnvironmentSettings):
    """Where the three servers are, and which model is used."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    images_partitions: Annotated[int, Field(ge=1)] = 12
    weaviate_url: str = "http://127.0.0.1:8080"
    weaviate_grpc_host: str | None = None
    weaviate_grpc_port: Port = 50051
    weaviate_api_key: SecretStr | None = None
    triton_url: str = "http://127.0.0.1:8000"
    triton_timeout: Seconds = 30.0
    triton_concurrency: Annotated[int, Field(ge=1)] = 8
    model_name: str = "lite"
    ready_file: Path | None = None
    """Touched when the process is ready; its modification time is the process's heartbeat."""


class WatcherSettings(ServerSettings):
    """The producer that watches a folder."""

    images_dir: Path = Path("images")
    quiet_seconds: Annotated[float, Field(ge=0)] = 0.3
    reconcile_seconds: Seconds = 3600.0
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Above zero: poll the tree this often instead of using the kernel's notifications."""
    allow_mass_removal: bool = False
    mass_removal_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    follow_symlinks: bool = False
    include_hidden: bool = False
    ignore_patterns: Annotated[tuple[str, ...], NoDecode] = ()
    """Patterns in the language of `.gitignore`, separated by line ends or `:`."""
    status_file: Path | None = None
    """JSON with what the watcher is doing, replaced every second."""

    @field_validator("ignore_patterns", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for line in value.splitlines() for part in line.split(":") if part)
        return value


class IndexingSettings(ServerSettings):
    """The consumer group that fills a collection."""

    batch_records: Annotated[int, Field(ge=1)] = 256
    batch_wait: Seconds = 0.1
    """Longest time a partial batch waits for more records, in seconds."""
    embed_batch: Annotated[int, Field(ge=1)] = 32
    embed_in_flight: Annotated[int, Field(ge=1)] = 2
    decode_workers: Annotated[int, Field(ge=0)] = 0
    """Threads that decode pictures; 0 means one per core."""
    decode_memory_bytes: Annotated[int, Field(ge=1)] = 128_000_000
    """What pictures being decoded may take together; one that needs more is decoded alone."""
    max_pixels: Annotated[int, Field(ge=1)] = 178_956_970
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    max_attempts: Annotated[int, Field(ge=1)] = 3
    poison_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    poison_window: Annotated[int, Field(ge=1)] = 500
    retry_initial: Seconds = 0.2
    retry_maximum: Seconds = 15.0
    max_poll_interval: Seconds = 300.0
    rebalance_grace: Seconds = 10.0
    """How long a rebalance waits for work under way before it is forgotten and read again."""
    shutdown_grace: Seconds = 20.0
    stuck_seconds: Seconds = 60.0
    """A consumer with lag that reads nothing for this long ends itself, to be started again."""


class LakeSettings(ServerSettings):
    """Where the event lake is, for all who write or read it."""

    lake_url: str = ".stack/lake"
    """A folder, or any URL that fsspec knows and that atomically replaces what is written."""


class AnalyticsSettings(LakeSettings):
    """The consumer group that fills the event lake."""

    analytics_group: str = "analytics"
    flush_records: Annotated[int, Field(ge=1)] = 50_000
    """Records that wait in memory, over all partitions, before they are written."""
    flush_seconds: Seconds = 2.0
    """Longest time a record waits before it is written."""
    compact_seconds: Seconds = 300.0
    compact_files: Annotated[int, Field(ge=2)] = 16
    """Small files of one partition and day that are worth merging."""
    compact_grace_seconds: Annotated[float, Field(ge=0)] = 600.0
    """How long merged files stay for readers that have begun."""
    max_poll_interval: Seconds = 300.0
    stuck_seconds: Seconds = 60.0


class GatewaySettings(LakeSettings):
    """The HTTP gateway."""

    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 3000
    images_dir: Path = Path("images")
    jwt_secret: SecretStr | None = None
    jwt_secret_file: Path = Path(".stack/jwt.secret")
    jwt_lifetime: Seconds = 24 * 3600.0
    request_timeout: Seconds = 20.0
    max_body_bytes: Annotated[int, Field(ge=1)] = 30_000_000
    max_pixels: Annotated[int, Field(ge=1)] = 178_956_970
    event_buffer: Annotated[int, Field(ge=1)] = 10_000
    """Search events that may wait for Kafka before further ones are dropped and counted."""
