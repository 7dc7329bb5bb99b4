"""The process table: how each server and each of our own processes is started and probed."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from stack.errors import StackError
from stack.install import binaries, toolchains
from stack.install.preparation import Cache, key_of
from stack.probes import TritonProbe, heartbeat_probe, http_probe, kafka_probe, never_ready
from stack.settings import ROOT, StackSettings
from stack.supervisor import ProcessSpec
from stack.triton_models import model_registry, render_models

_SMALL_JVM: Final = (
    # A broker with few topics gains nothing from the second compiler: without it, the start and the
    # first minutes take a quarter of the CPU time.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    # The heap starts small, grows when it has to, and shrinks again.
    "-Xms32m",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=30",
)


def servers(settings: StackSettings, cache: Cache) -> list[ProcessSpec]:
    """The servers that the settings do not name; prepares their programs first.

    Raises:
        StackError: one of them cannot be prepared.
    """
    wanted = []
    if settings.weaviate_url is None:
        wanted.append(weaviate)
    if settings.kafka_bootstrap_servers is None:
        wanted.append(kafka)
    if settings.triton_url is None:
        wanted.append(triton)
    if not wanted:
        return []
    # Weaviate first: compiling it takes longest, and the others are prepared beside it.
    with ThreadPoolExecutor(len(wanted)) as pool:
        try:
            begun = [pool.submit(each, settings, cache) for each in wanted]
            for done in as_completed(begun):
                done.result()
        except BaseException:  # Ctrl-C too: the pool waits for what it has begun.
            cache.progress.stop()
            raise
    return [each.result() for each in begun]


def kafka(settings: StackSettings, cache: Cache) -> ProcessSpec:
    """One Kafka node in KRaft mode, which is both broker and controller."""
    home = settings.state / "kafka"
    java = toolchains.java(cache)
    classpath = f"{binaries.kafka_jars(cache)}/*"
    properties, logging = home / "server.properties", home / "log4j2.properties"
    data = home / "data"
    java_command = [str(java), *_SMALL_JVM, f"-Xmx{settings.kafka_heap}"]
    java_command += [f"-Dlog4j2.configurationFile={logging}", "-cp", classpath]

    def format_storage() -> None:
        # Before each start, since the whole folder may be gone.
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
            output = f"{error.stdout or ''}{error.stderr or ''}"[-2000:]
            raise StackError(f"Kafka's storage could not be formatted:\n{output}") from error

    return ProcessSpec(
        name="kafka",
        command=[*java_command, "kafka.Kafka", str(properties)],
        log=settings.logs / "kafka.log",
        ready=kafka_probe(settings.server_settings()),
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
        # The partitions of a killed indexer are reassigned after this time.
        "group.min.session.timeout.ms": 3000,
        # A killed broker cannot register again until its session has expired; the default of 9 s
        # would be most of a restart's time.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # Topics come only from the topic table; a misspelt name must be an error.
        "auto.create.topics.enable": "false",
        "message.max.bytes": 8 * 1024 * 1024,
        # Allocated at the start, by default 128 MiB. This much compacts 600 000 keys in one pass,
        # and more keys in several.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # The default of 7 days is too short for a machine that was off for a month. Offsets of
        # abandoned groups still expire.
        "offsets.retention.minutes": 60 * 24 * 60,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _cluster_id() -> str:
    """A new id in Kafka's form: 16 random bytes in URL-safe base64, without padding."""
    # Like Kafka's own ids, it does not start with a dash, which the tool would parse as an option.
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
        ready=http_probe(f"http://{host}:{settings.weaviate_port}/v1/.well-known/ready"),
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
            # A single node elects itself; the default of 5 is for nodes connected by a network.
            "RAFT_TIMEOUTS_MULTIPLIER": "1",
            "GRPC_PORT": str(settings.weaviate_grpc_port),
            "DISABLE_TELEMETRY": "true",
            "GOMEMLIMIT": str(settings.weaviate_memory_bytes),
            # A lost collection must not be recreated implicitly, without its schema.
            "AUTOSCHEMA_ENABLED": "false",
            "LOG_LEVEL": "warning",
        },
        stop_grace=30.0,
    )


def triton(settings: StackSettings, cache: Cache) -> ProcessSpec:
    """Triton with the current models; others are loaded while it runs."""
    program = binaries.triton(cache)
    models = settings.triton_models
    # Separate the Python backends' shared memory of two stacks on one machine.
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
            cache.say(f"the model {name} is missing from {settings.models} and is not served")

    works = TritonProbe(settings.server_settings(), lambda: settings.active_model)
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
        # A candidate that fails to load must not prevent serving the active model.
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
    """Creates the topics and the collection; runs once at each start."""
    return ProcessSpec(
        name="provision",
        command=[sys.executable, "-m", "adapters.provision"],
        log=settings.logs / "provision.log",
        ready=never_ready,
        needs=needs,
        environment=_own_environment(settings),
        one_shot=True,
    )


def indexers(settings: StackSettings, model: str) -> list[ProcessSpec]:
    """The indexers of this model's collection. A switch does not change their names."""
    infix = "" if model == settings.first_model else f"{model}-"
    return [
        _worker(settings, f"indexer-{infix}{number}", ["consumers", "indexing"], MODEL_NAME=model)
        for number in range(1, settings.indexers + 1)
    ]


def is_indexer(name: str) -> bool:
    """Whether a process of this name is an indexer."""
    return name.startswith("indexer-")


def own_processes(settings: StackSettings) -> list[ProcessSpec]:
    """The active model's indexers, watcher, analytics, gateway; other models' indexers are added
    later."""
    gateway = ProcessSpec(
        name="gateway",
        command=[sys.executable, "-m", "gateway"],
        log=settings.logs / "gateway.log",
        ready=http_probe(f"{settings.gateway_url}/api/v1/healthcheck"),
        # The page needs no server, so this also succeeds while the servers are down.
        alive=http_probe(f"{settings.gateway_url}/", accept_refusal=True),
        needs=("provision",),
        environment={
            **_own_environment(settings),
            "WATCHER_STATUS_FILE": str(settings.watcher_status),
            "ADOPTION_STATUS_FILE": str(settings.adoption),
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
        ready=heartbeat_probe(ready_file),
        alive=heartbeat_probe(ready_file),
        needs=("provision",),
        environment={**_own_environment(settings), "READY_FILE": str(ready_file), **more},
        # Remove the ready file of the previous process.
        prepare=lambda: ready_file.unlink(missing_ok=True),
        stop_grace=30.0,
    )


def _own_environment(settings: StackSettings) -> dict[str, str]:
    return {
        **settings.environment(),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def is_own_process(name: str) -> bool:
    """Whether this process is one of ours, not a server."""
    return re.fullmatch(r"watcher|gateway|analytics|indexer-.+", name) is not None
