"""Imports point one way, and foreign clients stay behind the adapters."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "schemas",
    "adapters",
    "imaging",
    "models",
    "analytics",
    "producers",
    "consumers",
    "gateway",
    "stack",
    "cli",
)

ALLOWED: dict[str, set[str]] = {
    "schemas": set(),
    "adapters": {"schemas"},
    "imaging": {"schemas", "adapters"},
    "models": {"schemas", "adapters", "imaging"},
    "analytics": {"schemas", "adapters", "imaging"},
    "producers": {"schemas", "adapters", "imaging"},
    "consumers": {"schemas", "adapters", "imaging", "models", "analytics"},
    "gateway": {"schemas", "adapters", "imaging", "models", "analytics"},
    "stack": {"schemas", "adapters", "imaging", "models"},
    "cli": {
        *{"schemas", "adapters", "imaging", "models", "analytics"},
        *{"producers", "consumers", "gateway", "stack"},
    },
}
"""Package -> the packages of ours that it may import."""

KNOWN_VIOLATIONS: set[tuple[str, str]] = set()
"""Imports that point the wrong way since the modules moved: (file, module). To be emptied."""

CLIENTS = {"aiokafka", "tritonclient", "weaviate"}
FASTSTREAM = "consumers/process/consumer_loop.py"
DECODERS = {"PIL", "pyvips", "rawpy", "pillow_heif", "pillow_jxl"}
DECODING = {
    "imaging/camera_raw.py",
    "imaging/colours.py",
    "imaging/decode_memory.py",
    "imaging/metadata/exif.py",
    "imaging/frames.py",
    "imaging/decode.py",
    "imaging/png_chunks.py",
    "imaging/salvage.py",
    "imaging/shrink.py",
    "imaging/thumbnail.py",
    "imaging/tiffs.py",
    "imaging/upright.py",
    "imaging/metadata/xmp.py",
}
"""Who hands bytes of pictures to decoders."""
WORKERS = {
    "imaging/worker_tasks.py",
    "imaging/sandbox/preload.py",
    "consumers/indexing/worker_task.py",
}
"""What runs in worker processes, named by no other module than as a text."""
SHOWS_OUR_OWN = "cli/terminal_images.py"
"""Decodes thumbnails, which are JPEGs that a worker made."""
SCHEMA_LIBRARIES = {"pydantic"}
CONCRETE = {
    "adapters.log.kafka",
    "adapters.log.kafka_admin",
    "adapters.embedder.triton",
    "adapters.index.weaviate",
}
BUILDERS = {"consumer_loop.py", "app.py", "__main__.py"}
ROOT_OF_CLIENTS = "adapters/bootstrap.py"
CLASSES = {
    "KafkaEventLog",
    "KafkaGroupAdmin",
    "WeaviateIndex",
    "TritonEmbedder",
    "TritonControl",
}
"""The clients of servers, which are built in one place."""
ADMINISTRATION = "adapters.log.kafka_admin"
"""Is given an address instead of settings."""
FOREIGN = {
    "AIOKafkaAdminClient": "adapters/log/",
    "AIOKafkaConsumer": "adapters/log/",
    "AIOKafkaProducer": "adapters/log/",
    "InferenceServerClient": "adapters/embedder/",
}
"""Clients of other libraries -> where those of ours that wrap them are."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def is_module(name: str) -> bool:
    """Whether this is a module of ours, rather than a name in one or a package."""
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists()


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_package_is_there() -> None:
    assert all(modules(package) for package in PACKAGES)
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == {*PACKAGES, "tests"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = {
        (relative(path), name)
        for path in modules(package)
        for name in imports(path)
        if top(name) in PACKAGES and top(name) not in ALLOWED[package] | {package}
        if is_module(name)
    }
    known = {each for each in KNOWN_VIOLATIONS if top(each[0].replace("/", ".")) == package}
    assert wrong == known


def test_schemas_import_only_pydantic_and_the_standard_library() -> None:
    import sys

    wrong = {
        (relative(path), name)
        for path in modules("schemas")
        for name in imports(path)
        if top(name) not in sys.stdlib_module_names | SCHEMA_LIBRARIES | {"schemas"}
    }
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_only_adapters_import_the_servers_clients(package: str) -> None:
    wrong = {
        (relative(path), name)
        for path in modules(package)
        for name in imports(path)
        if top(name) in CLIENTS and package != "adapters" and relative(path) != FASTSTREAM
    }
    assert not wrong


def test_only_one_file_imports_faststream() -> None:
    users = {
        relative(path)
        for package in PACKAGES
        for path in modules(package)
        if any(top(name) == "faststream" for name in imports(path))
    }
    assert users <= {FASTSTREAM}


@pytest.mark.parametrize("package", ["producers", "consumers", "gateway"])
def test_only_builders_import_concrete_clients(package: str) -> None:
    wrong = {
        (relative(path), name)
        for path in modules(package)
        if path.name not in BUILDERS
        for name in imports(path)
        if name in CONCRETE
    }
    assert not wrong


def calls(path: Path) -> Iterator[str]:
    """Names of all that a file calls, without what they are attributes of."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


@pytest.mark.parametrize("package", PACKAGES)
def test_clients_are_built_in_one_place(package: str) -> None:
    wrong = {
        (relative(path), name)
        for path in modules(package)
        if relative(path) != ROOT_OF_CLIENTS
        for name in calls(path)
        if name in CLASSES or (name in FOREIGN and not relative(path).startswith(FOREIGN[name]))
    }
    assert not wrong


def test_each_client_is_built() -> None:
    assert set(calls(ROOT / ROOT_OF_CLIENTS)) >= CLASSES


@pytest.mark.parametrize("package", PACKAGES)
def test_groups_are_administered_with_settings(package: str) -> None:
    wrong = {
        (relative(path), name)
        for path in modules(package)
        if relative(path) != ROOT_OF_CLIENTS
        for name in imports(path)
        if name == ADMINISTRATION
    }
    assert not wrong


def test_decoders_are_imported_by_what_runs_in_workers_alone() -> None:
    behind = {path.removesuffix(".py").replace("/", ".") for path in DECODING | WORKERS}
    allowed = DECODING | WORKERS
    wrong = {
        (relative(path), name)
        for package in PACKAGES
        for path in modules(package)
        if relative(path) not in allowed
        for name in imports(path)
        if (top(name) in DECODERS and relative(path) != SHOWS_OUR_OWN)
        or any(name == each or name.startswith(f"{each}.") for each in behind)
    }
    assert not wrong
    assert all((ROOT / path).exists() for path in allowed)


def test_modules_are_small() -> None:
    long = {
        relative(path): lines
        for package in PACKAGES
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long


def test_no_two_classes_have_one_name() -> None:
    """A name alone says which class is meant; private ones are read within their module."""
    found = Counter(
        node.name
        for package in PACKAGES
        for path in modules(package)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in found.items() if count > 1] == []
