"""Imports point one way, and foreign clients stay behind the adapters."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
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
    "models": {"schemas", "adapters"},
    "analytics": {"schemas", "adapters"},
    "producers": {"schemas", "adapters", "imaging"},
    "consumers": {"schemas", "adapters", "imaging", "analytics"},
    "gateway": {"schemas", "adapters", "imaging", "models", "analytics"},
    "stack": {"schemas", "adapters", "imaging", "models"},
    "cli": {
        *{"schemas", "adapters", "models", "analytics"},
        *{"producers", "consumers", "gateway", "stack"},
    },
}
"""Package -> the packages of ours that it may import."""

ALLOWED_BELOW: dict[str, set[str]] = {
    "adapters/embedder": {"adapters"},
    "adapters/index": {"adapters", "adapters/embedder"},
    "adapters/log": {"schemas", "adapters"},
    "imaging/metadata": {"adapters/index"},
    "imaging/sandbox": {"schemas", "adapters", "imaging", "imaging/sources"},
    "imaging/sources": {"adapters"},
    "producers/bucket": {
        *{"schemas", "adapters", "adapters/log", "imaging", "imaging/sources"},
        *{"producers", "producers/folder", "producers/log"},
    },
    "producers/folder": {
        *{"adapters", "adapters/log", "imaging", "imaging/sources"},
        *{"producers", "producers/log"},
    },
    "producers/log": {"schemas", "adapters", "adapters/log", "imaging/sources", "producers"},
    "consumers/analytics": {
        "schemas",
        "adapters",
        "adapters/log",
        "analytics",
        "consumers/process",
    },
    "consumers/indexing": {
        *{"schemas", "adapters", "adapters/embedder", "adapters/index", "adapters/log"},
        *{"imaging", "imaging/sandbox", "imaging/sources"},
        *{"consumers/process", "consumers/repair"},
    },
    "consumers/process": {"schemas", "adapters", "adapters/log"},
    "consumers/repair": {"schemas", "adapters/index", "adapters/log"},
    "gateway/auth": {"schemas", "adapters", "gateway"},
    "gateway/http": {
        *{"adapters", "adapters/index", "imaging", "analytics"},
        *{"gateway", "gateway/auth", "gateway/images", "gateway/search"},
    },
    "gateway/images": {
        *{"adapters", "adapters/index", "imaging", "imaging/sources"},
        *{"gateway", "gateway/search"},
    },
    "gateway/routes": {
        *{"schemas", "adapters/index", "models", "analytics"},
        *{"gateway", "gateway/auth", "gateway/http"},
        *{"gateway/images", "gateway/search", "gateway/state"},
    },
    "gateway/search": {
        *{"schemas", "adapters", "adapters/embedder", "adapters/index", "adapters/log"},
        *{"imaging", "gateway", "gateway/auth"},
    },
    "gateway/state": {
        *{"schemas", "adapters", "adapters/embedder", "adapters/index", "adapters/log"},
        *{"models", "analytics", "gateway", "gateway/search"},
    },
    "stack/install": {"stack"},
}
"""Sub-package -> the packages and sub-packages of ours that it may import; no others below them."""

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
"""Modules that pass image bytes to decoders."""
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


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
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


def imported(package: str) -> set[tuple[str, str]]:
    """Each import of a module of ours by a package and all below it: (file, module)."""
    return {
        (relative(path), name)
        for path in modules(package)
        for name in imports(path)
        if top(name) in PACKAGES and is_module(name)
    }


def package_of(name: str) -> str:
    """The package or sub-package that a module is in."""
    return name.rpartition(".")[0].replace(".", "/")


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    others = {each for each in imported(package) if top(each[1]) != package}
    assert not {each for each in others if top(each[1]) not in ALLOWED[package]}
    assert {top(name) for _, name in others} == ALLOWED[package], "no file needs the others"


@pytest.mark.parametrize("package", sorted(ALLOWED_BELOW))
def test_imports_of_sub_packages_point_one_way(package: str) -> None:
    others = {each for each in imported(package) if package_of(each[1]) != package}
    allowed = ALLOWED_BELOW[package]
    assert not {each for each in others if package_of(each[1]) not in allowed}
    assert {package_of(name) for _, name in others} == allowed, "no file needs the others"


def test_each_sub_package_has_its_rule() -> None:
    found = {relative(path.parent) for package in PACKAGES for path in modules(package)}
    assert found - {*PACKAGES} == {*ALLOWED_BELOW}


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


@pytest.mark.slow
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
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


@pytest.mark.slow
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


@pytest.mark.slow
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
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in found.items() if count > 1] == []
