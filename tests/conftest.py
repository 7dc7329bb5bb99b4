"""Fixtures every suite may use: real servers, started once for the whole run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from adapters.embedder.spec import ModelSpec
from adapters.log.fake import FakeEventLog

ROOT = Path(__file__).parents[1]

# A busy machine is no failure. In CI the examples are the same each time, so that a change is
# judged by what it changed; elsewhere they vary, to find what nobody thought of.
hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")
# Nothing that tests start, in this process or as another one, may reach the real hub: no program
# listens on this port. Tests that download name `tests/support/hub_server.py` instead.
NO_HUB = "http://127.0.0.1:9"
os.environ["HF_ENDPOINT"] = NO_HUB
STACK_TIMEOUT_SECONDS = 25 * 60
"""Enough for a cold preparation, in which Weaviate may be compiled."""


SHARING = {
    "system": [
        "tests/e2e/test_access.py",
        "tests/e2e/test_analytics.py",
        "tests/e2e/test_commands.py",
        "tests/e2e/test_corpus.py",
        "tests/e2e/test_unknown_positions.py",
        "tests/e2e/test_docs.py",
        "tests/e2e/test_healing.py",
        "tests/e2e/test_library.py",
        "tests/e2e/test_openapi.py",
        "tests/e2e/test_page.py",
        "tests/e2e/test_page_state.py",
        "tests/e2e/test_repairs.py",
        "tests/e2e/test_search_results.py",
        "tests/e2e/test_whole_path.py",
    ],
    "servers": [
        "tests/contract/test_embedder.py",
        "tests/contract/test_event_log.py",
        "tests/contract/test_group_admin.py",
        "tests/contract/test_image_index.py",
        "tests/integration/test_analytics.py",
        "tests/integration/test_indexing_faults.py",
        "tests/integration/test_discarded_producer.py",
        "tests/integration/test_decoders.py",
        "tests/integration/test_collections.py",
        "tests/integration/test_indexing.py",
        "tests/integration/test_model_exactness.py",
        "tests/integration/test_provision.py",
    ],
}
"""The files that one worker runs, because they share what the fixture of this name starts."""

_SHARED = {file: fixture for fixture, files in SHARING.items() for file in files}


class SharedServers(LoadScopeScheduling):  # type: ignore[misc]  # the package has no types
    """Groups tests for a worker (`-n`): by file, or by the servers that several files share."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return _SHARED.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedServers:
    """Groups are made here, as loadgroup's marks have no effect since pytest changed test ids."""
    return SharedServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a file that shares servers and is not in the table: each worker would start some."""
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        names = set(getattr(item, "fixturenames", ())) & SHARING.keys()
        own = {name for name in names if hasattr(getattr(item, "module", None), name)}
        wanted = "system" if "system" in names - own else next(iter(names - own), None)
        if _SHARED.get(file) != wanted and not (wanted is None and file in _SHARED):
            raise pytest.UsageError(f"{file} uses {wanted}: name it in SHARING ({__file__})")


@dataclass(frozen=True)
class Servers:
    """A running stack: where its servers listen and how to command it."""

    environment: dict[str, str]
    kafka: str
    weaviate_url: str
    weaviate_grpc_port: int
    triton_url: str

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `./image-search …` for this stack."""
        return run_image_search(self.environment, *arguments, check=check)


def run_image_search(
    environment: dict[str, str], *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `./image-search` with these settings; a failure shows what it printed."""
    done = subprocess.run(
        [str(ROOT / "image-search"), *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=STACK_TIMEOUT_SECONDS,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"image-search {' '.join(arguments)} exited with {done.returncode}\n"
            f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done


def stack_environment(state: Path, images: Path) -> dict[str, str]:
    """Settings of a stack that shares no port and no file with another one."""
    from stack.tcp_ports import free_ports

    names = (
        "GATEWAY_PORT",
        "KAFKA_PORT",
        "KAFKA_CONTROLLER_PORT",
        "WEAVIATE_PORT",
        "WEAVIATE_GRPC_PORT",
        "WEAVIATE_GOSSIP_PORT",
        "WEAVIATE_DATA_PORT",
        "WEAVIATE_RAFT_PORT",
        "WEAVIATE_RAFT_INTERNAL_PORT",
        "TRITON_PORT",
        "TRITON_GRPC_PORT",
        "TRITON_METRICS_PORT",
    )
    ports = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    # With `lite` named, the stack does not move to another model by itself.
    return {
        **ports,
        "STATE_DIR": str(state),
        "IMAGES_DIR": str(images),
        "MODEL_NAME": "lite",
    }


def servers_of(environment: dict[str, str]) -> Servers:
    """The addresses that these settings give the servers."""
    return Servers(
        environment=environment,
        kafka=f"127.0.0.1:{environment['KAFKA_PORT']}",
        weaviate_url=f"http://127.0.0.1:{environment['WEAVIATE_PORT']}",
        weaviate_grpc_port=int(environment["WEAVIATE_GRPC_PORT"]),
        triton_url=f"http://127.0.0.1:{environment['TRITON_PORT']}",
    )


@contextmanager
def running_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Kafka, Weaviate and Triton as real processes, with topics and the collection in place."""
    state = tmp_path_factory.mktemp("servers")
    images = tmp_path_factory.mktemp("no-images")
    environment = stack_environment(state, images)
    run_image_search(environment, "up", "--detach", "--servers-only")
    try:
        yield servers_of(environment)
    finally:
        run_image_search(environment, "down")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers that the tests of one worker share."""
    with running_servers(tmp_path_factory) as running:
        yield running


@pytest.fixture
def small_spec() -> ModelSpec:
    """A model with small dimensions, for tests without inference."""
    return ModelSpec(
        name="small",
        version="0123456789ab",
        dimension=8,
        width=16,
        height=16,
        resize_mode="stretch",
        licence="Apache-2.0",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to watch."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def log() -> FakeEventLog:
    """An empty in-memory log."""
    return FakeEventLog()
