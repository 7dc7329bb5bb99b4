"""Environment to frozen settings. Never read at import: only a `__main__` or a factory calls these.

Each setting is the upper-case environment variable of its name, for instance `WEAVIATE_URL`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from imaging.sources.source import Source, parse_sources

MINIMUM_KEY: Final = 16
"""Characters of an API key: fewer could be guessed."""

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class BadSettings(ValueError):
    """A setting cannot be used: a line for each, with the variable's name and what is wrong."""


class EnvironmentSettings(BaseSettings):
    """Base: frozen, from the environment alone.

    Raises:
        BadSettings: when made, for a value that cannot be.
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
    """Where the three servers are, and which model is used."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_replication_factor: Annotated[int, Field(ge=1)] = 1
    kafka_timeout: Seconds = 30.0
    """After which a publication is given up and made again; a broker restarts in less."""
    images_partitions: Annotated[int, Field(ge=1)] = 12
    weaviate_url: str = "http://127.0.0.1:8080"
    weaviate_grpc_host: str | None = None
    weaviate_grpc_port: Port = 50051
    weaviate_api_key: SecretStr | None = None
    triton_url: str = "http://127.0.0.1:8000"
    triton_timeout: Seconds = 30.0
    triton_concurrency: Annotated[int, Field(ge=1)] = 8
    model_name: str = "lite"
    retention_days: Annotated[int, Field(ge=0)] = 0
    """Days that searches and ratings stay, in the log and in the lake; 0 for ever."""
    ready_file: Path | None = None
    """Touched when the process is ready; its modification time is the process's heartbeat."""
    stuck_seconds: Seconds = 180.0
    """A process that has work, waits for no server that is away, and achieves nothing for this long
    ends itself, to be started again. More than any one call to a server may take."""


class SourceSettings(ServerSettings):
    """Where the pictures are."""

    images_dir: Path = Path("images")
    images_sources: Annotated[tuple[Source, ...], NoDecode] = ()
    """Further folders and buckets, as `name=url` separated by spaces; ids start with `name/`."""
    ignore_defaults: bool = True
    """Whether what systems keep for themselves (`imaging.sources.system_names`) is left out."""

    @field_validator("images_sources", mode="before")
    @classmethod
    def _parse_sources(cls, value: object) -> object:
        return parse_sources(value) if isinstance(value, str) else value


class WatcherSettings(SourceSettings):
    """The producer that watches a folder."""

    quiet_seconds: Annotated[float, Field(ge=0)] = 0.3
    reconcile_seconds: Seconds = 3600.0
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Above zero: poll the tree this often instead of using the kernel's notifications."""
    list_seconds: Seconds = 30.0
    """How often a bucket is listed anew."""
    allow_mass_removal: bool = False
    mass_removal_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    follow_symlinks: bool = False
    include_hidden: bool = False
    ignore_patterns: Annotated[tuple[str, ...], NoDecode] = ()
    """Patterns in the language of `.gitignore`, separated by line ends or `:`."""
    status_file: Path | None = None
    """JSON with what the watcher is doing, replaced every second."""
    stuck_seconds: Seconds = 600.0
    """As of every process, but a large file on a slow disk takes its time."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where Prometheus finds `/metrics`; 0 for nowhere."""

    @field_validator("ignore_patterns", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for line in value.splitlines() for part in line.split(":") if part)
        return value


class DecodingSettings(EnvironmentSettings):
    """How pictures are decoded, for all who do."""

    decode_memory_bytes: Annotated[int, Field(ge=1)] = 96_000_000
    """What pictures being decoded may take together, and their files half as much; one that needs
    more is decoded while no other large one is."""
    decode_seconds: Seconds = 30.0
    """A picture whose decoding takes longer is refused."""
    max_pixels: Annotated[int, Field(ge=1)] = 178_956_970


class IndexingSettings(SourceSettings, DecodingSettings):
    """The consumer group that fills a collection."""

    batch_records: Annotated[int, Field(ge=1)] = 256
    batch_wait: Seconds = 0.1
    """Longest time a partial batch waits for more records, in seconds."""
    embed_batch: Annotated[int, Field(ge=1)] = 32
    embed_in_flight: Annotated[int, Field(ge=1)] = 2
    decode_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode pictures; 0 means one per core."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    max_attempts: Annotated[int, Field(ge=1)] = 3
    poison_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    poison_window: Annotated[int, Field(ge=1)] = 500
    retry_initial: Seconds = 0.2
    retry_maximum: Seconds = 5.0
    max_poll_interval: Seconds = 300.0
    rebalance_grace: Seconds = 10.0
    """How long a rebalance waits for work under way before it is forgotten and read again."""
    shutdown_grace: Seconds = 20.0


class LakeSettings(ServerSettings):
    """Where the event lake is, for all who write or read it."""

    lake_url: str = ".stack/lake"
    """A folder, or any URL that fsspec knows and that atomically replaces what is written."""


class QuestionSettings(EnvironmentSettings):
    """What questions to the event lake may take, all that one process answers at once together."""

    analytics_memory: Annotated[ByteSize | None, Field(ge=64 << 20)] = None
    """Bytes, as `2GiB`; an eighth of the machine's memory if none is named. A question that needs
    more writes up to four times as much to temporary files, and then is given up."""
    analytics_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one question; 0 for half of the cores."""


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


class AdviceSettings(EnvironmentSettings):
    """When ratings are so low that another model is worth a look."""

    advice_window: Seconds = 7 * 24 * 3600.0
    """Ratings of so many last seconds count."""
    advice_threshold: Annotated[float, Field(ge=1, le=10)] = 5.0
    """Mean rating, 1 to 10, below which another model is looked for."""
    advice_ratings: Annotated[int, Field(ge=1)] = 10
    """Fewer ratings than this say nothing."""
    advice_refresh: Seconds = 300.0
    """How often the gateway works it out anew."""


class GatewaySettings(
    SourceSettings, LakeSettings, AdviceSettings, QuestionSettings, DecodingSettings
):
    """The HTTP gateway."""

    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 3000
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    jwt_secret: SecretStr | None = None
    jwt_secret_file: Path = Path(".stack/jwt.secret")
    jwt_lifetime: Seconds = 24 * 3600.0
    request_timeout: Seconds = 20.0
    outage_patience: Annotated[float, Field(ge=0)] = 15.0
    """A search waits so long for a server that has just gone away; 0 to be refused at once."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 30_000_000
    event_buffer: Annotated[int, Field(ge=1)] = 10_000
    """Search events that may wait for Kafka before further ones are dropped and counted."""
    duplicate_score: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Cosine of two pictures' vectors from which they count as near-duplicates."""
    watcher_status_file: Path | None = None
    """The watcher's `STATUS_FILE`, for what it passed over; without it that is not told."""
    uploads: bool = True
    """Whether pictures may be added over HTTP."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 100_000_000
    upload_timeout: Seconds = 300.0
    picture_workers: Annotated[int, Field(ge=1)] = 2
    """Processes that decode pictures, of queries, thumbnails and uploads; also, how many uploads
    are worked on at once."""
    thumbnails_dir: Path = Path(".stack/thumbnails")
    thumbnails_bytes: Annotated[int, Field(ge=1_000_000)] = 500_000_000
    """About what the folder of thumbnails may hold before the least used ones are deleted."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Separated by commas or white space; with any set, every route but health demands one."""
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    """With an issuer: every route but health demands a token of it for this audience, or a key."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names under which the gateway may be asked, beside localhost and every IP address, separated
    by commas or white space: `photos.example`, `*.example`, or `*` for any (see decision 17)."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of other sites whose pages may use the API, for instance `https://photos.example`."""
    rate_limit: Annotated[float, Field(ge=0)] = 0.0
    """Requests a second that one client may send on average; 0 for no bound."""
    rate_burst: Annotated[int, Field(ge=1)] = 50
    """Requests that one client may send at once before the rate counts."""
    log_texts: bool = True
    """Whether search and feedback events hold the query's text."""
    log_clients: bool = True
    """Whether they hold who asked, as a hashed name."""
    client_salt: SecretStr | None = None
    """The hash's salt; derived from the receipts' secret if none is set."""
    text_cache: Annotated[int, Field(ge=0)] = 4096
    """Embeddings of texts that are remembered for each model."""

    @field_validator("api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < MINIMUM_KEY for key in keys):
            raise ValueError(f"each key must have at least {MINIMUM_KEY} characters")
        return keys

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            name = host.removeprefix("*.")
            if host != "*" and (not name or any(c in name for c in "*:/@[]")):
                raise ValueError(f"{host!r} is not a name such as photos.example or *.example")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            address = urlsplit(origin)
            if origin != "*" and origin != f"{address.scheme}://{address.netloc}":
                raise ValueError(f"{origin!r} is not an origin such as https://photos.example")
        return origins

    @model_validator(mode="after")
    def _issuer_and_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("set both OIDC_ISSUER and OIDC_AUDIENCE, or neither")
        if self.oidc_issuer is not None:
            address = urlsplit(self.oidc_issuer)
            local = address.hostname in ("localhost", "127.0.0.1", "::1")
            if address.scheme != "https" and not (local and address.scheme == "http"):
                raise ValueError("OIDC_ISSUER must be an https address")
        return self
