"""Checks of the machine's disks, memory and ports.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from stack.install.finding import OK, PROBLEM, WARNING, Finding
from stack.install.memory import available
from stack.install.variables import setting

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
GIB = 1 << 30
MEMORY_BYTES = int(1.5 * GIB)
FULL_SHARE = 0.9
"""Weaviate takes no writes once this share of its disk is used."""
FOREIGN_FILE_SYSTEMS = frozenset(
    [
        "vfat",
        "msdos",
        "exfat",
        "ntfs",
        "ntfs3",
        "fuseblk",
        "9p",
        "drvfs",
        "cifs",
        "smb3",
        "nfs",
        "nfs4",
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.s3fs",
        "ceph",
        "vboxsf",
        "prl_fs",
    ]
)
"""File systems without the locks, links or memory maps that Kafka and Weaviate rely on."""
PASSING_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


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
    """The folder, or the nearest one above it that exists and can be seen."""
    # Path.exists fails below a folder of another user.
    return next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110


def matching(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder, sorted; nothing if this user cannot see it."""
    found = glob.glob(f"{glob.escape(str(folder))}/{pattern}")  # noqa: PTH207  # whose glob fails
    return [Path(each) for each in sorted(found)]


def check_writable(folders: Mapping[Path, Iterable[str]]) -> list[Finding]:
    """Whether this user can write to folders, and to what an earlier command has left there.

    Args:
        folders: folder (which may not exist yet) -> patterns of files and folders in it.
    """
    findings = []
    for folder, patterns in folders.items():
        wrong = _unwritable(folder, patterns)
        if wrong is not None:
            findings.append(wrong)
    if findings:
        return findings
    return [Finding("folders", OK, "can be written to: " + ", ".join(map(str, folders)))]


def _unwritable(folder: Path, patterns: Iterable[str]) -> Finding | None:
    unknown = [part for part in folder.parts if part[:1] == "~" == os.path.expanduser(part)[:1]]  # noqa: PTH111
    if unknown and not os.path.exists(folder):  # noqa: PTH110
        advice = {"": "set HOME, or STATE_DIR and CACHE_DIR"}
        return Finding("folders", PROBLEM, f"{folder}: there is no such home folder", advice)
    there = existing(folder)
    if not os.path.isdir(there):  # noqa: PTH112
        advice = {"": "move it away, or set CACHE_DIR and STATE_DIR to other folders"}
        return Finding("folders", PROBLEM, f"{there} is a file, not a folder", advice)
    wrong = [] if os.access(there, os.W_OK | os.X_OK) else [there]
    if not wrong and there == folder:
        found = (each for pattern in patterns for each in matching(folder, pattern))
        wrong = [
            each for each in found if os.access(each, os.F_OK) and not os.access(each, os.W_OK)
        ]
    if not wrong:
        return None
    text = f"{', '.join(map(str, wrong))}: this user cannot write there"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        text = f"{there} is on a disk that can only be read"
        return Finding(
            "folders", PROBLEM, text, {"": "set CACHE_DIR and STATE_DIR to other folders"}
        )
    advice = {"": f'sudo chown -R "$(id -un)" {" ".join(shlex.quote(str(each)) for each in wrong)}'}
    return Finding("folders", PROBLEM, text, advice)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def check_memory(
    meminfo: Path = Path("/proc/meminfo"),
    groups: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
) -> Finding:
    """Memory that is available now, to the machine and to the control groups of this process."""
    left = available(meminfo, groups, root)
    if left is None:
        return Finding("memory", WARNING, "how much memory is available is not known")
    text = f"{_gigabytes(left)} available"
    if left < MEMORY_BYTES:
        text += f", {_gigabytes(MEMORY_BYTES)} are needed"
        advice = {"": "close some programs, or raise the limit of this container"}
        return Finding("memory", PROBLEM, text, advice)
    return Finding("memory", OK, text)


def check_ports(environment: Mapping[str, str]) -> Finding:
    """Every port of the local stack can be bound, unless a stack is running already."""
    unneeded = tuple(start for name, start in ELSEWHERE.items() if setting(environment, name))
    wrong: list[str] = []
    found: dict[int, list[str]] = {}
    for variable, default in PORTS.items():
        if unneeded and variable.startswith(unneeded):
            continue
        value = setting(environment, variable) or str(default)
        number = _port(value)
        if number is None:
            wrong.append(f"{variable} is {value!r}, which is no port")
        else:
            found.setdefault(number, []).append(variable)
    for number, variables in found.items():
        if len(variables) > 1:
            wrong.append(f"{' and '.join(variables)} are the same, {number}")
    refused = {number: _refusal(number) for number in found}
    for reason in ("in use", "not permitted to this user"):
        busy = [f"{n} ({found[n][0]})" for n, refusal in refused.items() if refusal == reason]
        if busy:
            wrong.append(f"{reason}: {', '.join(busy)}")
    if wrong:
        advice = {"": "set these variables to other ports, or stop what uses them"}
        return Finding("ports", PROBLEM, "; ".join(wrong), advice)
    return Finding("ports", OK, "free")


def _port(value: str) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if 0 < number < 1 << 16 else None


def _refusal(number: int) -> str | None:
    """Why a server cannot listen on a port; None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            permitted = error.errno not in (errno.EACCES, errno.EPERM)
            return "in use" if permitted else "not permitted to this user"
    return None


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
        point = _unescaped(fields[4])
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best[0]:
            best = (len(point), fields[fields.index("-", 6) + 1])
    return best[1]


def _unescaped(point: str) -> str:
    """A path of mountinfo, where white space is written as an octal number."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)


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
