"""The table of processes: how each server and each of our own is started and known to be ready."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from stack import binaries, toolchains
from stack.errors import StackError
from stack.preparation import Cache, key_of
from stack.probes import TritonWorks, answers, heartbeat, kafka_answers, never_asked
from stack.settings import ROOT, StackSettings
from stack.supervisor import ProcessSpec
from stack.triton_models import model_registry, render_models

_SMALL_JVM: Final = (
    # A broker of a few topics is done before the second compiler pays: without it a start and the
    # first minutes take a quarter of the processor time.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
)


def servers(settings: StackSettings, cache: Cache) -> list[ProcessSpec]:
    """The servers that the environment does not name; prepares their programs first.

    Raises:
        StackError: one of them cannot be prepared.
    """
    wanted = []
    if settings.kafka_bootstrap_servers is None:
        wanted.append(kafka(settings, cache))
    if settings.weaviate_url is None:
        wanted.append(weaviate(settings, cache))
    if settings.triton_url is None:
        wanted.append(triton(settings, cache))
    return wanted


def kafka(settings: StackSettings, cache: Cache) -> ProcessSpec:
    """One Kafka node in KRaft mode, broker and controller in one."""
    home = settings.state / "kafka"
    java = toolchains.java(cache)
    classpath = f"{binaries.kafka_jars(cache)}/*"
    properties, logging = home / "server.properties", home / "log4j2.properties"
    data = home / "data"
    java_command = [str(java), f"-Xmx{settings.kafka_heap}", f"-Xms{settings.kafka_heap}"]
    java_command += [*_SMALL_JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", classpath]

    def format_storage() -> None:
        # Each time, as the whole folder may be gone.
        home.mkdir(parents=True, exist_ok=True)
        properties.write_text(_kafka_properties(settings, data))
        logging.write_text(_KAFKA_LOGGING)
        if (data / "meta.properties").exists():
            return
        tool = [str(java), *_SMALL_JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", classpath]
        tool.append("kafka.tools.StorageTool")
        try:
            subprocess.run(
                [*tool, "format", "-t", _cluster_id(), "-c", str(properties)],
                check=True,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            said = f"{error.stdout or ''}{error.stderr or ''}"[-2000:]
            raise StackError(f"Kafka's storage could not be formatted:\n{said}") from error

    return ProcessSpec(
        name="kafka",
        command=[*java_command, "kafka.Kafka", str(properties)],
        log=settings.logs / "kafka.log",
        ready=kafka_answers(f"127.0.0.1:{settings.kafka_port}"),
        prepare=format_storage,
        stop_grace=30.0,
    )


def _kafka_properties(settings: StackSettings, data: Path) -> str:
    host = "127.0.0.1"
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{host}:{settings.kafka_controller_port}",
        "listeners": f"PLAINTEXT://{host}:{settings.kafka_port},"
        f"CONTROLLER://{host}:{settings.kafka_controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{settings.kafka_port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A killed indexer's partitions go to another one, or to its successor, this soon.
        "group.min.session.timeout.ms": 3000,
        # A broker that was killed may not register again until its session has ended, which with
        # the default of 9 s is most of what a restart takes.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # Topics come from the topic table alone; a misspelt name must be an error.
        "auto.create.topics.enable": "false",
        "message.max.bytes": 8 * 1024 * 1024,
        # Its default, for ever, would let group state of retired models pile up; this is long
        # enough for a machine that was off for a month.
        "offsets.retention.minutes": 60 * 24 * 60,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _cluster_id() -> str:
    """A new one in Kafka's form: 16 random bytes in URL-safe base64, without padding."""
    # As Kafka's own do, it begins with no dash, which its tool would take for an option.
    return "A" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[1:22]


_KAFKA_LOGGING = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{yyyy-MM-dd HH:mm:ss,SSS} %p %c{1} %m%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
logger.kafka.name=org.apache.kafka
logger.kafka.level=WARN
"""


def weaviate(settings: StackSettings, cache: Cache) -> ProcessSpec:
    """One Weaviate node without modules."""
    binary = binaries.weaviate(settings, cache)
    host = "127.0.0.1"
    return ProcessSpec(
        name="weaviate",
        command=[
            str(binary),
            "--host",
            host,
            "--port",
            str(settings.weaviate_port),
            "--scheme",
            "http",
        ],
        log=settings.logs / "weaviate.log",
        ready=answers(f"http://{host}:{settings.weaviate_port}/v1/.well-known/ready"),
        environment={
            "PERSISTENCE_DATA_PATH": str(settings.state / "weaviate"),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "ENABLE_MODULES": "",
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_ADVERTISE_ADDR": host,
            "CLUSTER_GOSSIP_BIND_PORT": str(settings.weaviate_gossip_port),
            "CLUSTER_DATA_BIND_PORT": str(settings.weaviate_data_port),
            "RAFT_PORT": str(settings.weaviate_raft_port),
            "RAFT_INTERNAL_RPC_PORT": str(settings.weaviate_raft_internal_port),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "RAFT_BOOTSTRAP_TIMEOUT": "30",
            # One node elects itself; five times the usual patience with others is for networks.
            "RAFT_TIMEOUTS_MULTIPLIER": "1",
            "GRPC_PORT": str(settings.weaviate_grpc_port),
            "DISABLE_TELEMETRY": "true",
            "GOMEMLIMIT": str(settings.weaviate_memory_bytes),
            # A collection that vanished must not come back by itself, without its description.
            "AUTOSCHEMA_ENABLED": "false",
            "LOG_LEVEL": "warning",
        },
        stop_grace=30.0,
    )


def triton(settings: StackSettings, cache: Cache) -> ProcessSpec:
    """Triton with the current models; more are loaded while it runs."""
    program = binaries.triton(cache)
    models = settings.triton_models
    # Two stacks on one machine must not share the Python backend's shared memory.
    prefix = f"image_search_{key_of(str(settings.state))}_"
    host = "127.0.0.1"

    def prepare() -> None:
        for stale in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 (Triton's own choice)
            stale.unlink(missing_ok=True)
        shutil.rmtree(models, ignore_errors=True)
        state = model_registry(settings).read()
        missing = render_models(settings, state.current, models, program.python_environment)
        if state.active in missing:
            raise StackError(
                f"the model {state.active} is not in {settings.models}: get it again with "
                f"'./image-search models pull {state.active}' or 'models add'"
            )
        for name in missing:
            cache.say(f"the model {name} is gone from {settings.models}: it is not served")

    works = TritonWorks(f"http://{host}:{settings.triton_port}", lambda: settings.active_model)
    command = [
        str(program.server),
        f"--model-repository={models}",
        f"--backend-directory={program.backends}",
        f"--cache-directory={program.caches}",
        f"--http-address={host}",
        f"--http-port={settings.triton_port}",
        f"--grpc-address={host}",
        f"--grpc-port={settings.triton_grpc_port}",
        f"--metrics-address={host}",
        f"--metrics-port={settings.triton_metrics_port}",
        "--model-control-mode=explicit",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--exit-timeout-secs=10",
        "--load-model=*",
        # A candidate that does not load must not keep the active model from being served.
        "--exit-on-error=false",
        "--strict-readiness=false",
    ]
    return ProcessSpec(
        name="triton",
        command=command,
        log=settings.logs / "triton.log",
        ready=works,
        alive=works,
        environment={"LD_LIBRARY_PATH": binaries.library_path(program)},
        prepare=prepare,
    )


def provisioning(settings: StackSettings, needs: tuple[str, ...]) -> ProcessSpec:
    """Topics and collection, made once at each start."""
    return ProcessSpec(
        name="provision",
        command=[sys.executable, "-m", "adapters.provision"],
        log=settings.logs / "provision.log",
        ready=never_asked,
        needs=needs,
        environment=_ours(settings),
        one_shot=True,
    )


def indexers(settings: StackSettings, model: str) -> list[ProcessSpec]:
    """The group that fills this model's collection. Its names do not change with a switch."""
    infix = "" if model == settings.model_name else f"{model}-"
    return [
        _worker(settings, f"indexer-{infix}{number}", ["consumers", "indexing"], MODEL_NAME=model)
        for number in range(1, settings.indexers + 1)
    ]


def is_indexer(name: str) -> bool:
    """Whether a process of this name fills a collection."""
    return name.startswith("indexer-")


def ours(settings: StackSettings) -> list[ProcessSpec]:
    """Watcher, analytics, gateway, the active model's indexers; those of others follow later."""
    gateway = ProcessSpec(
        name="gateway",
        command=[sys.executable, "-m", "gateway"],
        log=settings.logs / "gateway.log",
        ready=answers(f"{settings.gateway_url}/api/v1/healthcheck"),
        # Its page needs no server: a gateway that answers 503 is well.
        alive=answers(f"{settings.gateway_url}/", refusal_will_do=True),
        needs=("provision",),
        environment={
            **_ours(settings),
            "WATCHER_STATUS_FILE": str(settings.watcher_status),
        },
    )
    watcher = _worker(settings, "watcher", ["producers"], STATUS_FILE=str(settings.watcher_status))
    analytics = _worker(settings, "analytics", ["consumers", "analytics"])
    return [*indexers(settings, settings.active_model), watcher, analytics, gateway]


def _worker(settings: StackSettings, name: str, module: list[str], **more: str) -> ProcessSpec:
    ready_file = settings.run / f"{name}.ready"
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-m", *module],
        log=settings.logs / f"{name}.log",
        ready=heartbeat(ready_file),
        alive=heartbeat(ready_file),
        needs=("provision",),
        environment={**_ours(settings), "READY_FILE": str(ready_file), **more},
        # The file of a predecessor says nothing about its successor.
        prepare=lambda: ready_file.unlink(missing_ok=True),
        stop_grace=30.0,
    )


def _ours(settings: StackSettings) -> dict[str, str]:
    return {
        **settings.environment(),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def is_ours(name: str) -> bool:
    """Whether this process is one of ours rather than a server."""
    return re.fullmatch(r"watcher|gateway|analytics|indexer-.+", name) is not None


async def servers_answer(settings: StackSettings) -> dict[str, bool]:
    """Server -> whether it answers now, wherever it runs."""
    environment = settings.environment()
    asked = {
        "kafka": kafka_answers(environment["KAFKA_BOOTSTRAP_SERVERS"]),
        "weaviate": answers(f"{environment['WEAVIATE_URL']}/v1/.well-known/ready"),
        "triton": answers(f"{environment['TRITON_URL']}/v2/health/ready"),
    }
    found = await asyncio.gather(*(ask() for ask in asked.values()))
    return dict(zip(asked, found, strict=True))
