"""Settings of the local stack: its ports, folders and limits."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ByteSize, Field, field_validator

from adapters import machine
from adapters.settings import (
    BrokerAddresses,
    EnvironmentSettings,
    FolderUrl,
    Host,
    HttpAddress,
    ModelName,
    Port,
    SecondsOrZero,
    ServerSettings,
)
from imaging.sources.source import Source, parse_sources
from models.catalogue import read_catalogue

ROOT = Path(__file__).resolve().parents[1]
PREFERRED_MODEL = "ViT-B-32__laion2b-s34b-b79k"
FORMERLY_PREFERRED_MODEL = "ViT-B-32__openai"
FALLBACK_MODEL = "lite"


GIB = 1 << 30
WEAVIATE_SHARE = 0.4
"""Weaviate's share of the machine's memory; the rest is for Kafka, Triton and other processes."""


def _check_java_memory(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*[kKmMgGtT]?", value):
        raise ValueError("must be a size in Java's notation, such as 512m or 2g")
    return value


def default_model(values: dict[str, Any]) -> str:
    """CLIP ViT-B/32: the earlier default if only that one has been downloaded."""
    models: Path = values["models_dir"] or values["cache_dir"] / "models"
    for name in (PREFERRED_MODEL, FORMERLY_PREFERRED_MODEL):
        if (models.expanduser() / name).is_dir():
            return name
    return PREFERRED_MODEL


def user_cache() -> Path:
    import platformdirs  # Here, because CACHE_DIR often names another folder.

    return Path(platformdirs.user_cache_dir("image-search", appauthor=False))


class StackSettings(EnvironmentSettings):
    """The local stack: what `./image-search up` starts, and where; read by every command."""

    state_dir: Path = ROOT / ".stack"
    """Data, logs and run files."""
    cache_dir: Path = Field(default_factory=user_cache)
    """Folder of prepared servers and models, shared by all checkouts; in the user's cache folder if
    none is set."""
    models_dir: Path | None = None
    """Folder of the models that were added; `models` in `CACHE_DIR` if none is set."""
    images_dir: Path = ROOT / "images"
    """The watched folder."""
    images_sources: tuple[Source, ...] = ()
    """Further folders and buckets, as `name=url` separated by spaces."""
    watcher_status_file: Path | None = None
    """File that the watcher writes its status to; in the state folder if none is set."""
    thumbnails_dir: Path | None = None
    """Folder of the thumbnails' cache; in the state folder if none is set."""
    jwt_secret_file: Path | None = None
    """File with the secret that signs receipts; in the state folder if none is set."""
    gateway_host: Host = "127.0.0.1"
    """Address that the gateway listens on."""
    gateway_port: Port = 3000
    """Port that the gateway listens on."""
    kafka_bootstrap_servers: BrokerAddresses | None = None
    """Addresses of existing Kafka brokers to use instead of a local one."""
    kafka_port: Port = 9092
    """Port of the local Kafka."""
    kafka_controller_port: Port = 9093
    """Port of the local Kafka's controller."""
    kafka_heap: Annotated[str, AfterValidator(_check_java_memory)] = "512m"
    """Maximum of the local Kafka's Java heap, which takes less while less is needed."""
    weaviate_url: HttpAddress | None = None
    """HTTP address of an existing Weaviate to use instead of a local one."""
    weaviate_port: Port = 8080
    """HTTP port of the local Weaviate."""
    weaviate_grpc_port: Port = 50051
    """Weaviate's gRPC port."""
    weaviate_gossip_port: Port = 7946
    """Port of the local Weaviate for cluster membership."""
    weaviate_data_port: Port = 7947
    """Port of the local Weaviate for cluster data."""
    weaviate_raft_port: Port = 8300
    """Port of the local Weaviate for Raft."""
    weaviate_raft_internal_port: Port = 8301
    """Port of the local Weaviate for calls within Raft."""
    weaviate_binary: Path | None = None
    """Path of an existing Weaviate program, to use it instead of compiling one."""
    weaviate_memory: ByteSize | None = None
    """Memory limit of the local Weaviate, as `6GiB`; 40 % of the machine's if none is set."""
    triton_url: HttpAddress | None = None
    """HTTP address of an existing Triton to use instead of a local one."""
    triton_port: Port = 8000
    """HTTP port of the local Triton."""
    triton_grpc_port: Port = 8001
    """gRPC port of the local Triton."""
    triton_metrics_port: Port = 8002
    """Port of the local Triton's metrics."""
    triton_image_instances: Annotated[int, Field(ge=1)] = 1
    """Instances of each image encoder."""
    triton_text_instances: Annotated[int, Field(ge=1)] = 1
    """Instances of each text encoder."""
    triton_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that an encoder uses for one batch; 0 means one per core."""
    triton_idle_seconds: SecondsOrZero = 10.0
    """Seconds without a batch after which an encoder gives the memory of past ones back; 0 means
    never."""
    lake_url: FolderUrl | None = None
    """The event lake: a folder, or any URL that fsspec supports; `lake` in the state folder if none
    is set."""
    model_name: ModelName = Field(default_factory=default_model)
    """Model of the first start; after that, `models switch` decides. One of the catalogue that is
    not installed is downloaded in the background, while `lite` answers searches. With `lite`,
    nothing is downloaded. If none is set: `ViT-B-32__laion2b-s34b-b79k`, or `ViT-B-32__openai` if
    only that one is installed."""
    indexers: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of indexers for each collection; they share the work."""
    log_bytes: Annotated[ByteSize, Field(ge=10_000)] = ByteSize(20_000_000)
    """Size above which a log file is rotated while its process runs."""
    log_files: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of rotated files kept for each log."""

    @field_validator("state_dir", "cache_dir", "models_dir", "images_dir")
    @classmethod
    def _check_home(cls, folder: Path | None) -> Path | None:
        """A folder below `~user` needs that user's home folder."""
        if folder is not None:
            try:
                folder.expanduser()
            except RuntimeError as error:
                raise ValueError(f"{folder.parts[0]} is not the home folder of a user") from error
        return folder

    @field_validator("images_sources", mode="before")
    @classmethod
    def _parse_sources(cls, value: object) -> object:
        return parse_sources(value) if isinstance(value, str) else value

    @property
    def state(self) -> Path:
        """The state folder, absolute: children run in another directory."""
        return self.state_dir.expanduser().resolve()

    @property
    def cache(self) -> Path:
        """The per-user cache, absolute."""
        return self.cache_dir.expanduser().resolve()

    @property
    def images(self) -> Path:
        """The watched folder, absolute."""
        return self.images_dir.expanduser().resolve()

    @property
    def image_folders(self) -> list[Path]:
        """Every local source of images, absolute."""
        further = [each.folder.resolve() for each in self.images_sources if each.is_local]
        return [self.images, *further]

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.state / "logs"

    @property
    def launcher_log(self) -> Path:
        """What a launcher in the background prints, and why one in a terminal shows no table."""
        return self.logs / "stack.log"

    @property
    def run(self) -> Path:
        """Run files: the lock, the process table, the ready files."""
        return self.state / "run"

    @property
    def watcher_status(self) -> Path:
        """The watcher's status, as JSON."""
        return self.watcher_status_file or self.run / "watcher.json"

    @property
    def lake(self) -> str:
        """The event lake: LAKE_URL, else a folder in the state folder."""
        return self.lake_url or str(self.state / "lake")

    @property
    def models(self) -> Path:
        """Models that were added, shared by all checkouts."""
        named = self.models_dir or self.cache / "models"
        return named.expanduser().resolve()

    @property
    def triton_models(self) -> Path:
        """The model repository that Triton serves."""
        return self.state / "triton" / "models"

    @property
    def model_state(self) -> Path:
        """Which models are current (`models.registry`), as JSON."""
        return self.state / "models.json"

    @property
    def model_state_before(self) -> Path:
        """`model_state` before its last change."""
        return self.state / "models.json.before"

    @property
    def adoption(self) -> Path:
        """How far the automatic change to a better model is (`models.adoption_status`)."""
        return self.run / "adoption.json"

    @property
    def start_model(self) -> str:
        """The model that a first start serves: the bundled one while `model_name` is not here. What
        is installed here says nothing about a Triton elsewhere: there, a named model is served."""
        if self.triton_url is not None and "model_name" in self.model_fields_set:
            return self.model_name
        if self.model_name == FALLBACK_MODEL or (self.models / self.model_name).is_dir():
            return self.model_name
        entry = read_catalogue().get(self.model_name)
        return self.model_name if entry is None else FALLBACK_MODEL

    @property
    def active_model(self) -> str:
        """The model that answers searches, by the state file; without one, `start_model`."""
        return self._recorded("active") or self.start_model

    @property
    def first_model(self) -> str:
        """The model of the first start, by the state file; without one, `start_model`."""
        return self._recorded("first") or self.start_model

    def _recorded(self, key: str) -> str | None:
        """A value of the state file."""
        for path in (self.model_state, self.model_state_before):
            try:
                value = json.loads(path.read_text())[key]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # Lost, or damaged by a crash of the machine: use the one before it.
            return None if value is None else str(value)
        return None

    @property
    def threads(self) -> int:
        """Threads of one encoder."""
        return self.triton_threads or os.cpu_count() or 1

    @property
    def weaviate_memory_bytes(self) -> int:
        """Bytes: the setting, else a share of the machine's memory, at least 1 GiB."""
        if self.weaviate_memory is not None:
            return int(self.weaviate_memory)
        return max(GIB, int(machine.machine_memory() * WEAVIATE_SHARE))

    @property
    def gateway_url(self) -> str:
        """The gateway's URL for a browser on this machine."""
        host = "127.0.0.1" if self.gateway_host in ("0.0.0.0", "::") else self.gateway_host
        return f"http://{host}:{self.gateway_port}"

    def used_ports(self, *, servers_only: bool = False) -> dict[str, int]:
        """Environment variable -> port, for each port that this stack listens on."""
        names: list[str] = [] if servers_only else ["gateway_port"]
        if self.kafka_bootstrap_servers is None:
            names += ["kafka_port", "kafka_controller_port"]
        if self.weaviate_url is None:
            names += [
                "weaviate_port",
                "weaviate_grpc_port",
                "weaviate_gossip_port",
                "weaviate_data_port",
                "weaviate_raft_port",
                "weaviate_raft_internal_port",
            ]
        if self.triton_url is None:
            names += ["triton_port", "triton_grpc_port", "triton_metrics_port"]
        return {name.upper(): getattr(self, name) for name in names}

    def environment(self) -> dict[str, str]:
        """Environment variables with which our own processes find the servers and folders."""
        kafka, weaviate, triton = (
            self.kafka_bootstrap_servers or f"127.0.0.1:{self.kafka_port}",
            self.weaviate_url or f"http://127.0.0.1:{self.weaviate_port}",
            self.triton_url or f"http://127.0.0.1:{self.triton_port}",
        )
        return {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "WEAVIATE_URL": weaviate,
            "WEAVIATE_GRPC_PORT": str(self.weaviate_grpc_port),
            "TRITON_URL": triton,
            "MODEL_NAME": self.active_model,
            "IMAGES_DIR": str(self.images),
            "STATE_DIR": str(self.state),
            "THUMBNAILS_DIR": str(self.thumbnails_dir or self.state / "thumbnails"),
            "GATEWAY_HOST": self.gateway_host,
            "GATEWAY_PORT": str(self.gateway_port),
            "LAKE_URL": self.lake,
            "JWT_SECRET_FILE": str(self.jwt_secret_file or self.state / "jwt.secret"),
        }

    def server_settings(self) -> ServerSettings:
        """Settings for clients of the servers that the environment names, else of the local ones.

        Raises:
            BadSettings: a setting that only the clients read has a value that is not allowed.
        """
        environment = self.environment()
        return ServerSettings(
            kafka_bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
            weaviate_url=environment["WEAVIATE_URL"],
            weaviate_grpc_port=int(environment["WEAVIATE_GRPC_PORT"]),
            triton_url=environment["TRITON_URL"],
            model_name=environment["MODEL_NAME"],
        )
