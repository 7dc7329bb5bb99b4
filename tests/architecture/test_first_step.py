"""What runs before there is an environment needs no library and no recent Python."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = "stack.install.start"
OLDEST = (3, 9)
"""The oldest version whose preflight must be able to say that it is too old."""


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere, with the names that it takes from a package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), feature_version=OLDEST)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if file_of(name).exists()} or {node.module}
    return found


def file_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def reached() -> set[str]:
    """The first step, and everything of ours that it imports."""
    modules: set[str] = set()
    waiting = {FIRST}
    while waiting:
        modules |= waiting
        waiting = {
            name
            for module in waiting
            for name in imported(file_of(module))
            if name.partition(".")[0] not in sys.stdlib_module_names
        } - modules
    return modules


def test_the_first_step_imports_the_standard_library_and_its_neighbours_alone() -> None:
    modules = reached()
    assert {"stack.install.preflight", "stack.install.environments"} < modules
    assert [module for module in modules if not module.startswith("stack.install.")] == []


@pytest.mark.parametrize("module", sorted(reached()))
def test_it_needs_no_recent_python(module: str) -> None:
    tree = ast.parse(file_of(module).read_text(), feature_version=OLDEST)
    # Only then is `str | None` in an annotation a text that is never evaluated.
    assert any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and [alias.name for alias in node.names] == ["annotations"]
        for node in tree.body
    )
    newer = [node for node in ast.walk(tree) if type(node).__name__ in ("Match", "TypeAlias")]
    assert newer == []
