"""The three servers' programs: Kafka's jars, Weaviate's binary, Triton's server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stack.errors import StackError
from stack.install import toolchains
from stack.install.preparation import Cache, discard, errors_of, key_of, remove_tree, run
from stack.settings import StackSettings

KAFKA_VERSION: Final = "4.1.0"
KAFKA: Final = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        # Pinned although it is a dependency: Log4j's managed versions would select an older one.
        f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
        # Without it the broker logs nothing.
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
    )
)
KAFKA_CHECKSUMS: Final = Path(__file__).with_name("kafka_jars.sha256")

WEAVIATE_VERSION: Final = "1.39.0"
WEAVIATE_MODULE: Final = "github.com/weaviate/weaviate/cmd/weaviate-server"
WEAVIATE_GO: Final = (1, 27)
WEAVIATE_PACKAGES: Final = 2300
"""Approximate number of lines its build prints: one per fetched module and compiled package."""
STUB: Final = "triton_python_backend_stub"
"""The program in which Triton's Python backend runs a model."""


def kafka_jars(cache: Cache) -> Path:
    """The folder of Kafka's jars, each verified against the checked-in SHA-256.

    Raises:
        StackError: they could not be fetched, or a checksum is wrong.
    """

    def make(target: Path) -> None:
        jgo = toolchains.environment(cache, "kafka", "the Maven resolver") / "bin" / "jgo"
        # jgo keeps its state below HOME; a separate HOME makes the step repeatable.
        home = target / ".home"
        home.mkdir()
        run(
            [jgo, "--ignore-config", "info", "classpath", KAFKA],
            cache.progress,
            "fetching Kafka's jars",
            environment={"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
            cwd=home,
        )
        for jar in (home / ".cache" / "jgo" / "envs").rglob("*.jar"):
            shutil.copyfile(jar, target / jar.name)
        remove_tree(home)
        _compare(target)

    return cache.get_or_prepare("kafka", key_of(KAFKA_CHECKSUMS), f"Kafka {KAFKA_VERSION}", make)


def _compare(folder: Path) -> None:
    pinned = (line.split(maxsplit=1) for line in KAFKA_CHECKSUMS.read_text().splitlines())
    expected = {name: checksum for checksum, name in pinned}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}
    if found != expected:
        wrong = sorted(
            name for name in expected.keys() | found if expected.get(name) != found.get(name)
        )
        raise StackError(f"Kafka's jars do not match their checksums: {', '.join(wrong)}")


def weaviate(settings: StackSettings, cache: Cache) -> Path:
    """The Weaviate server: WEAVIATE_BINARY, else one on the PATH, else built from source.

    Raises:
        StackError: WEAVIATE_BINARY is not an executable file, or the build failed.
    """
    if settings.weaviate_binary is not None:
        binary = settings.weaviate_binary.expanduser().resolve()
        if not os.access(binary, os.X_OK):
            raise StackError(f"WEAVIATE_BINARY: {binary} is not an executable file")
        return binary
    for name in ("weaviate-server", "weaviate"):
        found = shutil.which(name)
        if found and _is_pinned_version(Path(found)):
            return Path(found)
    folder = cache.get_or_prepare(
        "weaviate",
        WEAVIATE_VERSION,
        f"Weaviate {WEAVIATE_VERSION} (compiled once, a few minutes)",
        lambda target: _build_weaviate(cache, target),
    )
    return folder / "weaviate-server"


def _is_pinned_version(binary: Path) -> bool:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return WEAVIATE_VERSION in done.stdout + done.stderr


def _build_weaviate(cache: Cache, target: Path) -> None:
    go = toolchains.go(cache, WEAVIATE_GO)
    work = target / ".build"
    try:
        run(
            # -modcacherw: an interrupted build must not leave folders that `rm -rf` cannot delete.
            [
                *(go, "install", "-v", "-modcacherw", "-ldflags", "-s -w"),
                f"{WEAVIATE_MODULE}@v{WEAVIATE_VERSION}",
            ],
            cache.progress,
            f"building Weaviate {WEAVIATE_VERSION}",
            environment={
                "GOTOOLCHAIN": "local",
                "GOROOT": str(go.resolve().parents[1]),
                "GOBIN": str(target),
                "GOPATH": str(work / "path"),
                "GOMODCACHE": str(work / "modules"),
                "GOCACHE": str(work / "cache"),
                "GOTMPDIR": str(target),
            },
            expected_lines=WEAVIATE_PACKAGES,
        )
    finally:
        # Up to 2 GB that are not needed any more.
        discard(work)


@dataclass(frozen=True, slots=True)
class Triton:
    """A prepared Triton: the server, its backends and the environment of its models."""

    server: Path
    backends: Path
    caches: Path
    libraries: tuple[Path, ...]
    python_environment: Path


def triton(cache: Cache) -> Triton:
    """The Triton server from nvidia-pytriton's wheel.

    Raises:
        StackError: it cannot be installed, or there is no Python for its models.
    """
    python = toolchains.triton_python(cache)
    what = "Triton and its models' libraries"
    venv = toolchains.environment(cache, "triton", what, python.path)
    packages = venv / "lib" / f"python{python.name}" / "site-packages"
    bundle = packages / "pytriton" / "tritonserver"
    # The server's own libraries are beside its package; libpython comes from this Python.
    backends = venv / "tritonserver-backends"
    if not (backends / "python" / STUB).exists():
        with errors_of(what), cache.exclusive(venv.name):
            _make_backends(backends, bundle, python.name)
    library = Path(python.library or "")
    return Triton(
        server=bundle / "bin" / "tritonserver",
        backends=backends,
        caches=bundle / "caches",
        libraries=(packages / "nvidia_pytriton.libs", library.parent),
        python_environment=venv,
    )


def _make_backends(backends: Path, bundle: Path, python: str) -> None:
    """Triton's backends with the stub of one Python. The caller holds the environment's lock."""
    if (backends / "python" / STUB).exists():
        return
    for stale in backends.parent.glob(f"{backends.name}*.part"):
        discard(stale)
    part = Path(tempfile.mkdtemp(prefix=f"{backends.name}-", suffix=".part", dir=backends.parent))
    try:
        shutil.copytree(bundle / "backends", part, dirs_exist_ok=True)
        shutil.copy(bundle / "python_backend_stubs" / python / STUB, part / "python" / STUB)
        discard(backends)
        part.rename(backends)
    finally:
        discard(part)


def library_path(triton: Triton) -> str:
    """LD_LIBRARY_PATH for the Triton server."""
    return ":".join(map(str, triton.libraries))
