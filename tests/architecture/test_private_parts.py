"""What we use of other libraries beyond their documentation is listed, and works as expected."""

import ast
import importlib
import inspect
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.private_parts import CHECKED, TABLE, Part
from tests.architecture.test_imports import PACKAGES, ROOT, modules, relative, top

DOCUMENTED: Final = {
    "aiokafka": {"", "admin", "admin.config_resource", "errors", "structs"},
    "faststream": {"", "kafka", "kafka.annotations"},
    "tritonclient": {"http.aio", "utils"},
    "watchdog": {"events", "observers", "observers.api"},
    "weaviate": {
        *("", "classes.config", "classes.data", "classes.init", "classes.query"),
        *("collections", "exceptions"),
    },
}
"""Library -> its modules that it documents; others are to be listed in the table."""

OURS: Final = {
    ("producers/rules.py", "_defaults"),
    ("producers/rules.py", "_hidden"),
    ("tests/support/fake_consumer.py", "_consumer"),
    ("tests/support/fake_consumer.py", "_handle"),
    ("tests/support/fake_indexing_group.py", "_partitions"),
}
"""Private attributes of our own classes, used by other objects: (file, attribute)."""

PUBLIC: Final = {"_asdict", "_exit", "_fields", "_replace"}
"""Documented in spite of their names: of named tuples, and of `os`."""

BY_NAME: Final = {"getattr", "setattr", "hasattr", "delattr"}

FILES: Final = (
    *(path for package in PACKAGES for path in modules(package)),
    *modules("tests/support"),
    ROOT / "tests" / "conftest.py",
)


def installed(library: str) -> str:
    return platform.python_version() if library == "python" else version(library)


@pytest.mark.parametrize("part", TABLE, ids=lambda part: f"{part.file}-{part.names[0]}")
async def test_it_is_as_the_code_expects(part: Part) -> None:
    try:
        done = part.canary()
        if done is not None:
            await done
    except Exception as error:
        here, checked = installed(part.library), CHECKED[part.library]
        raise AssertionError(
            f"{part.file} uses {', '.join(part.names)} of {part.library}, which is not as it was: "
            f"checked with {checked}, {here} is installed. What to do: {part.then}."
        ) from error


@pytest.mark.parametrize("library", CHECKED)
def test_the_version_is_one_that_was_checked(library: str) -> None:
    here, checked = installed(library), CHECKED[library]
    files = sorted({part.file for part in TABLE if part.library == library})
    assert here.split(".")[:2] == checked.split(".")[:2], (
        f"{library} {here} is installed, but what {', '.join(files)} use beyond its documentation "
        f"was checked with {checked}: read them with its changes, then raise it in CHECKED"
    )


def test_the_table_names_existing_files_and_checked_libraries() -> None:
    assert all((ROOT / part.file).is_file() for part in TABLE)
    assert {part.library for part in TABLE} == CHECKED.keys()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def attributes(tree: ast.AST) -> Iterator[str]:
    """Private attributes of anything but `self` and `cls`, and private names in imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if is_private(node.attr) and not of_itself:
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(each.name for each in node.names)]
            yield from filter(is_private, names)
        elif isinstance(node, ast.Import):
            yield from filter(is_private, (p for each in node.names for p in each.name.split(".")))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in BY_NAME:
            named = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
            yield from filter(is_private, map(str, named))


def overridden(tree: ast.Module) -> Iterator[str]:
    """Private names that a class defines or uses although its foreign base class has them."""
    imported = {
        each.asname or each.name: (node.module, each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for each in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for base in node.bases:
            named = base.value if isinstance(base, ast.Subscript) else base
            module, name = imported.get(getattr(named, "id", ""), ("", ""))
            if not module or top(module) in {*PACKAGES, "tests"}:
                continue
            foreign = getattr(importlib.import_module(module), name)
            used = {
                *(each.name for each in node.body if isinstance(each, ast.FunctionDef)),
                *(each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)),
            }
            yield from (each for each in used if is_private(each) and hasattr(foreign, each))


def test_every_way_of_use_is_found() -> None:
    tree = ast.parse("a.b._c; self._own; getattr(a, '_d'); a._replace()\nfrom x._e import _f")
    assert sorted(attributes(tree)) == ["_c", "_d", "_e", "_f"]
    override = "from xdist.scheduler import LoadScopeScheduling as B\nclass A(B):\n    def "
    assert list(overridden(ast.parse(f"{override}_split_scope(self): pass"))) == ["_split_scope"]
    assert list(overridden(ast.parse(f"{override}_new(self): pass"))) == []


LISTED: Final = {(part.file, name) for part in TABLE for name in part.names}


@pytest.mark.slow
def test_every_private_attribute_is_listed() -> None:
    used = {
        (relative(path), name)
        for path in FILES
        for tree in [ast.parse(path.read_text(encoding="utf-8"))]
        for name in (*attributes(tree), *overridden(tree))
    }
    assert used - LISTED - OURS == set(), "list these in private_parts.py, each with a canary"
    assert {each for each in LISTED if is_private(each[1])} - used == set(), "not used any more"
    assert OURS - used == set(), "not used any more"


@pytest.mark.slow
def test_every_undocumented_module_is_listed() -> None:
    used = {(relative(path), name) for path in FILES for name in undocumented(path)}
    assert used - LISTED == set(), "list these in private_parts.py, each with a canary"


def undocumented(path: Path) -> Iterator[str]:
    """Modules that a file imports although their library does not document them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        for name in names:
            library, _, within = name.partition(".")
            if library in DOCUMENTED and within not in DOCUMENTED[library]:
                yield name


def test_every_canary_is_its_own() -> None:
    canaries = [part.canary for part in TABLE]
    assert len(set(canaries)) == len(canaries)
    assert all(inspect.isfunction(each) for each in canaries)
