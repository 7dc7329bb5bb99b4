"""Checks of the machine's disks, memory and ports.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from stack.install.finding import OK, PROBLEM, WARNING, Finding
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
    unneeded = tuple(start for name, start in ELSEWHERE.items() if setting(environment, name))
    wrong, busy = [], []
    for variable, default in PORTS.items():
        if unneeded and variable.startswith(unneeded):
            continue
        number = setting(environment, variable) or str(default)
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
