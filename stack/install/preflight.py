"""What a machine must have before anything is installed, checked at once in the first second.

This file uses the standard library alone and the syntax of Python 3.8, for it runs before there is
an environment, by whatever Python the machine has.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"
ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 13), (3, 12), (3, 11))
"""Versions that our own processes run on, best first."""
TRITON_PYTHONS = ((3, 12), (3, 11))
"""Versions that Triton's Python backend has a stub for and NumPy 1.26 a wheel."""
MINIMUM_GLIBC = (2, 35)
"""Triton's wheel is built against it."""
PORTS = {
    "GATEWAY_PORT": 3000,
    "KAFKA_PORT": 9092,
    "KAFKA_CONTROLLER_PORT": 9093,
    "WEAVIATE_PORT": 8080,
    "WEAVIATE_GRPC_PORT": 50051,
    "WEAVIATE_GOSSIP_PORT": 7946,
    "WEAVIATE_DATA_PORT": 7947,
    "WEAVIATE_RAFT_PORT": 8300,
    "WEAVIATE_RAFT_INTERNAL_PORT": 8301,
    "TRITON_PORT": 8000,
    "TRITON_GRPC_PORT": 8001,
    "TRITON_METRICS_PORT": 8002,
}
"""Environment variable -> the port that a local server listens on if it is not set."""
ELSEWHERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "KAFKA_",
    "WEAVIATE_URL": "WEAVIATE_",
    "TRITON_URL": "TRITON_",
}
"""Variable that names a server elsewhere -> how the ports begin that are not needed then."""
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
"""Variables for a file of certificate authorities: OpenSSL, Go, uv and httpx read the first."""
GIB = 1 << 30
BUILD_BYTES = 4 * GIB
"""What compiling Weaviate takes in the cache for a while, its Go toolchain included."""
ENVIRONMENT_BYTES = 2 * GIB
"""What the Python environments take."""
STATE_BYTES = GIB
MEMORY_BYTES = int(1.5 * GIB)
FULL_SHARE = 0.9
"""Weaviate takes no writes once this share of its disk is used."""
FOREIGN_FILE_SYSTEMS = frozenset(
    ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "9p", "drvfs", "cifs", "smb3")
    + ("nfs", "nfs4", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "ceph", "vboxsf", "prl_fs")
)
"""File systems without the locks, links or memory maps that Kafka and Weaviate rely on."""
PASSING_FILE_SYSTEMS = frozenset(("tmpfs", "ramfs"))

Version = tuple[int, int]


class Finding(NamedTuple):
    """One check: its subject, what was found, and a command for each package manager.

    `remedies` maps the name of a package manager to a command; the empty name is for advice that
    does not depend on one.
    """

    subject: str
    state: str
    text: str
    remedies: dict[str, str] = {}


class Python(NamedTuple):
    """A Python interpreter on this machine."""

    path: str
    version: Version
    library: str | None
    """Its shared library, which Triton's Python backend loads; None if it is missing."""
    has_venv: bool


_DESCRIBE = """
import importlib.util as u, json, os, sys, sysconfig as s
name = s.get_config_var("INSTSONAME") or ""
folders = [s.get_config_var("LIBDIR") or "", s.get_config_var("LIBPL") or ""]
folders += ["/usr/lib/" + (s.get_config_var("MULTIARCH") or ""), "/usr/lib64", "/usr/lib"]
if ".so" not in name:
    name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
found = [os.path.join(f, name) for f in folders if f and os.path.exists(os.path.join(f, name))]
print(json.dumps([sys.executable, sys.version_info[:2], found[0] if found else None,
                  bool(u.find_spec("venv") and u.find_spec("ensurepip"))]))
"""


def describe_python(path: str) -> Python | None:
    """An interpreter's version, shared library and modules; None if it does not run."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _DESCRIBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        )
        found, version, library, has_venv = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Python(found or path, (version[0], version[1]), library, has_venv)


def find_pythons(environment: Mapping[str, str]) -> list[Python]:
    """The interpreters of `PYTHON` and the PATH that our own processes can run on, best first."""
    names = [environment.get("PYTHON", ""), *(f"python{a}.{b}" for a, b in PYTHONS), "python3"]
    search = environment.get("PATH")
    paths = [
        found for found in (shutil.which(name, path=search) for name in names if name) if found
    ]
    described = [describe_python(path) for path in dict.fromkeys(paths)]
    return [python for python in described if python is not None and python.version in PYTHONS]


def for_processes(pythons: Sequence[Python]) -> Python | None:
    """The interpreter for our own processes."""
    return next((python for python in pythons if python.has_venv), None)


def for_triton(pythons: Sequence[Python]) -> Python | None:
    """The interpreter for the models in Triton."""
    fitting = (p for p in pythons if p.version in TRITON_PYTHONS and p.library is not None)
    return next(fitting, None)


def _names(versions: Sequence[Version]) -> str:
    return ", ".join(f"{a}.{b}" for a, b in sorted(versions))


def check_machine() -> Finding:
    """Linux on x86-64 with a C library that is new enough."""
    system, machine = platform.system(), platform.machine()
    compose = {"": "on this machine, use containers: docker compose up"}
    if (system, machine) != ("Linux", "x86_64"):
        text = f"this is {system} on {machine}; Triton's and Weaviate's programs are for Linux on x86-64"
        return Finding("machine", PROBLEM, text, compose)
    name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    parts = number.split(".")
    if name != "glibc" or not all(part.isdigit() for part in parts[:2]):
        return Finding("machine", PROBLEM, "Triton's program needs the C library glibc", compose)
    if (int(parts[0]), int(parts[1])) < MINIMUM_GLIBC:
        wanted = ".".join(map(str, MINIMUM_GLIBC))
        text = f"glibc is {number}, and Triton's program needs {wanted} or newer"
        return Finding("machine", PROBLEM, text, compose)
    return Finding("machine", OK, f"Linux on x86-64, glibc {number}")


def check_python(pythons: Sequence[Python], *, uv: bool) -> Finding:
    """A Python for our own processes."""
    chosen = for_processes(pythons)
    if chosen is not None:
        return Finding("Python", OK, f"{chosen.version[0]}.{chosen.version[1]}, {chosen.path}")
    if pythons and not uv:
        a, b = pythons[0].version
        text = f"{pythons[0].path} has no module `venv`"
        return Finding("Python", PROBLEM, text, {"apt": f"sudo apt install python{a}.{b}-venv"})
    if pythons:
        return Finding("Python", OK, pythons[0].path)
    text = f"one of Python {_names(PYTHONS)} is needed, and none is on the PATH"
    return Finding("Python", PROBLEM, text, _install_python((3, 12), (3, 11), (3, 13)))


def check_triton_python(pythons: Sequence[Python]) -> Finding:
    """A Python for the models in Triton, with its shared library."""
    chosen = for_triton(pythons)
    subject = "Python for Triton"
    if chosen is not None:
        return Finding(subject, OK, f"{chosen.version[0]}.{chosen.version[1]}, {chosen.library}")
    bare = next((p for p in pythons if p.version in TRITON_PYTHONS), None)
    if bare is not None:
        name = f"{bare.version[0]}.{bare.version[1]}"
        remedies = {
            "apt": f"sudo apt install libpython{name}",
            "dnf": f"sudo dnf install python{name}-libs",
            "pacman": "sudo pacman -S python",
            "brew": f"brew install python@{name}",
        }
        text = f"Python {name} is here, but not its shared library (libpython{name}.so.1.0)"
        return Finding(subject, PROBLEM, text, remedies)
    text = f"Triton's models need Python {_names(TRITON_PYTHONS)} with its shared library"
    return Finding(subject, PROBLEM, text, _install_python(*TRITON_PYTHONS))


def _install_python(*versions: Version) -> dict[str, str]:
    """Commands that install the first of these versions that the package manager has."""
    a, b = next((v for v in versions if _apt_has(f"libpython{v[0]}.{v[1]}")), versions[0])
    apt = f"sudo apt install python{a}.{b} python{a}.{b}-venv libpython{a}.{b}"
    remedies = {
        "dnf": "sudo dnf install python3.12",
        "pacman": "uv python install 3.12",
        "brew": "brew install python@3.12",
    }
    if _apt_has(f"libpython{a}.{b}"):
        remedies["apt"] = apt
    else:
        remedies[""] = (
            "your distribution has no such Python: install uv, run 'uv python install 3.12', "
            "and start again with PYTHON=$(uv python find 3.12); or use docker compose up"
        )
    return remedies


def _apt_has(package: str) -> bool:
    if not shutil.which("apt-cache"):
        return False
    found = subprocess.run(
        ["apt-cache", "show", package],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return found.returncode == 0


def check_make() -> Finding:
    """`make`, which the README's two commands are."""
    found = shutil.which("make")
    if found:
        return Finding("make", OK, found)
    remedies = {
        "apt": "sudo apt install make",
        "dnf": "sudo dnf install make",
        "pacman": "sudo pacman -S make",
        "brew": "brew install make",
    }
    text = "make is missing; ./image-search up works without it"
    return Finding("make", WARNING, text, remedies)


def check_disk(needs: Mapping[Path, int]) -> list[Finding]:
    """Room for what is installed and stored, by disk.

    Args:
        needs: folder (which may not exist yet) -> bytes that will be written there.
    """
    by_disk: dict[int, list[tuple[Path, int]]] = {}
    for folder, needed in needs.items():
        there = existing(folder)
        by_disk.setdefault(there.stat().st_dev, []).append((there, needed))
    findings = []
    for places in by_disk.values():
        folder, needed = places[0][0], sum(each[1] for each in places)
        usage = shutil.disk_usage(folder)
        text = f"{_gigabytes(usage.free)} free at {folder}"
        if usage.free < needed:
            text += f", {_gigabytes(needed)} are needed"
            advice = {
                "": "free some space, or set CACHE_DIR and STATE_DIR to folders on another disk"
            }
            findings.append(Finding("disk", PROBLEM, text, advice))
        elif (usage.total - usage.free + needed) / usage.total > FULL_SHARE:
            text += "; Weaviate takes no writes while its disk is 90 % full"
            findings.append(Finding("disk", WARNING, text, {"": "free some space"}))
        else:
            findings.append(Finding("disk", OK, text))
    return findings


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory that is available now."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Finding("memory", WARNING, "how much memory is available is not known")
    text = f"{_gigabytes(available)} available"
    if available < MEMORY_BYTES:
        text += f", {_gigabytes(MEMORY_BYTES)} are needed"
        return Finding("memory", PROBLEM, text, {"": "close some programs"})
    return Finding("memory", OK, text)


def check_ports(environment: Mapping[str, str]) -> Finding:
    """Every port of the local stack can be bound, unless a stack is running already."""
    unneeded = tuple(start for name, start in ELSEWHERE.items() if environment.get(name))
    wrong, busy = [], []
    for variable, default in PORTS.items():
        if unneeded and variable.startswith(unneeded):
            continue
        number = environment.get(variable, str(default))
        if not number.isdigit() or not 0 < int(number) < 1 << 16:
            wrong.append(f"{variable} is {number!r}, which is no port")
        elif not _is_free(int(number)):
            busy.append(f"{number} ({variable})")
    if wrong:
        return Finding("ports", PROBLEM, "; ".join(wrong))
    if busy:
        advice = {"": "stop what uses them, or set these variables to other ports"}
        return Finding("ports", PROBLEM, "in use: " + ", ".join(busy), advice)
    return Finding("ports", OK, "free")


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that holds a folder, as `ext4`; None if it is not known."""
    best: tuple[int, str | None] = (-1, None)
    resolved = str(existing(folder).resolve())
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if "-" not in fields[6:]:
            continue
        point = (
            fields[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
        )
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best[0]:
            best = (len(point), fields[fields.index("-", 6) + 1])
    return best[1]


def check_file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Whether the servers can keep their data on this folder's file system."""
    kind = file_system(folder, mounts)
    text = f"{kind or 'of unknown type'} at {folder}"
    advice = {"": "set STATE_DIR to a folder on a disk of this machine"}
    if kind in FOREIGN_FILE_SYSTEMS:
        text += ": Kafka and Weaviate cannot keep their data there safely"
        return Finding("file system", PROBLEM, text, advice)
    if kind in PASSING_FILE_SYSTEMS:
        return Finding("file system", WARNING, text + ": it is lost at the next start", advice)
    return Finding("file system", OK, text)


def check_certificates(environment: Mapping[str, str]) -> Finding:
    """Files of certificate authorities that the environment names, as behind a proxy."""
    subject = "certificates"
    named = [(name, environment[name]) for name in CERTIFICATES if environment.get(name)]
    for name, value in named:
        try:
            content = Path(value).read_bytes()
        except OSError as error:
            text = f"{name}: {value} cannot be read ({error.strerror})"
            return Finding(subject, PROBLEM, text, {"": f"correct {name}, or unset it"})
        if b"-----BEGIN CERTIFICATE-----" not in content:
            text = f"{name}: {value} holds no certificate in PEM form"
            return Finding(subject, PROBLEM, text, {"": f"correct {name}, or unset it"})
    if named:
        return Finding(subject, OK, f"{named[0][0]}: {named[0][1]}, passed on to every step")
    return Finding(subject, OK, "those of the system")


def certificates(environment: Mapping[str, str]) -> dict[str, str]:
    """All of `CERTIFICATES`, each with its own value or the first one that is set."""
    value = next((environment[name] for name in CERTIFICATES if environment.get(name)), None)
    if value is None:
        return {}
    return {name: environment.get(name) or value for name in CERTIFICATES}


def folders(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The folder of the stack's state and that of the per-user cache (`StackSettings`)."""
    home = Path(environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    state = Path(environment.get("STATE_DIR") or ROOT / ".stack").expanduser()
    cache = Path(environment.get("CACHE_DIR") or home / "image-search").expanduser()
    return state.absolute(), cache.absolute()


def check_all(environment: Mapping[str, str]) -> list[Finding]:
    """Every check."""
    state, cache = folders(environment)
    pythons = find_pythons(environment)
    uv = shutil.which("uv", path=environment.get("PATH")) is not None
    built = any(cache.glob("weaviate-*")) or bool(environment.get("WEAVIATE_BINARY"))
    running = (state / "run" / "stack.json").exists()
    findings = [check_machine(), check_python(pythons, uv=uv)]
    if not environment.get("TRITON_URL"):
        findings.append(check_triton_python(pythons))
    findings.append(check_make())
    needs = {ROOT: ENVIRONMENT_BYTES, state: STATE_BYTES, cache: GIB if built else BUILD_BYTES}
    if (ROOT / ".venv").exists():
        del needs[ROOT]
    findings += check_disk(needs)
    findings.append(check_memory())
    if not running:
        findings.append(check_ports(environment))
    findings.append(check_file_system(state))
    findings.append(check_certificates(environment))
    return findings


def managers(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """The package managers of this machine; all that we know commands for if none is there."""
    known = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman", "brew": "brew"}
    return [name for name, program in known.items() if which(program)] or list(known)


def lines(findings: Sequence[Finding], here: Sequence[str], *, everything: bool) -> list[str]:
    """The findings as text: all of them, or those that are not ok.

    Args:
        here: the package managers whose commands are shown.
    """
    told = []
    for finding in findings:
        if finding.state == OK and not everything:
            continue
        told.append(f"{finding.state:<8} {finding.subject}: {finding.text}")
        shown = [name for name in here if name in finding.remedies]
        told += [f"           {name}: {finding.remedies[name]}" for name in shown]
        if "" in finding.remedies:
            told.append(f"           {finding.remedies['']}")
    return told


def main(arguments: Sequence[str]) -> int:
    """`doctor`: print every finding. Returns the exit status: 1 if there is a problem."""
    findings = check_all(os.environ)
    if "--json" in arguments:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))  # noqa: T201
    else:
        for line in lines(findings, managers(), everything=True):
            print(line)  # noqa: T201
    return int(any(finding.state == PROBLEM for finding in findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
