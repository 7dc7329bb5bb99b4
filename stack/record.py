"""The process table on disk, with which `status` and `down` find a running stack."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from stack.errors import StackError

if TYPE_CHECKING:
    import psutil

    from stack.supervisor import SupervisedProcess

STOP_TIMEOUT_SECONDS = 90.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class ProcessRow(BaseModel):
    """One process.

    `identity` distinguishes it from a later process with the same id, and does not depend on the
    clock. Records of earlier versions have `created` instead, in seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    state: str
    pid: int | None = None
    identity: str | None = None
    created: float | None = None
    started_at: float = 0.0
    restarts: int = 0
    log: str = ""


class Record(BaseModel):
    """A running stack: its launcher and its processes."""

    model_config = ConfigDict(frozen=True)

    launcher: ProcessRow
    ready: bool = False
    gateway_url: str
    processes: list[ProcessRow] = []


def identity(pid: int | None) -> str | None:
    """The boot id, and the process's start in clock ticks since boot (proc_pid_stat(5), field 22);
    None if there is no such process.

    Setting the clock changes neither of the two.
    """
    if pid is None:
        return None
    try:
        # The second field is the program's name in brackets, which may contain any character.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{_BOOT.read_text().strip()}:{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_running(row: ProcessRow) -> bool:
    """Whether the row's process runs; as `find`, for who does not need the process itself."""
    if row.identity is None:
        return find(row) is not None
    if row.pid is None or identity(row.pid) != row.identity:
        return False
    try:
        stat = Path(f"/proc/{row.pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def uptime(row: ProcessRow) -> float | None:
    """Seconds since the row's process was started; None if it is not running."""
    found = identity(row.pid)
    if found is None or not is_running(row):
        return None
    started = int(found.rpartition(":")[2]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def row_of(supervised: SupervisedProcess) -> ProcessRow:
    """A supervised process as a row."""
    return ProcessRow(
        name=supervised.spec.name,
        state=supervised.state,
        pid=supervised.pid,
        identity=identity(supervised.pid),
        started_at=supervised.started_at,
        restarts=supervised.restarts,
        log=str(supervised.spec.log),
    )


def find(row: ProcessRow) -> psutil.Process | None:
    """The running process of a row; None if it has ended, or its id was reused."""
    if row.pid is None:
        return None
    import psutil  # Here, as in the others: without a process it is not needed.

    try:
        process = psutil.Process(row.pid)
        if row.identity is not None:
            if identity(row.pid) != row.identity:
                return None
        elif row.created is not None and abs(process.create_time() - row.created) > 1.0:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


class RecordFile:
    """`<state>/run/stack.json`, and the lock that only one launcher can hold."""

    def __init__(self, run: Path) -> None:
        self._path = run / "stack.json"
        self._lock = run / "lock"

    def read(self) -> Record | None:
        """The newest record, of a stack that is running or was killed; None if there is none."""
        try:
            return Record.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, record: Record) -> None:
        """Replace the record atomically."""
        part = self._path.with_suffix(".part")
        part.write_text(record.model_dump_json(indent=1))
        part.replace(self._path)

    def remove(self) -> None:
        """Delete the record: the stack is stopped."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this state folder's only launcher.

        Raises:
            StackError: another one is running.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StackError(
                    f"already running as process {file.read().strip() or '?'} on "
                    f"{self._lock.parents[1]}; stop it with './image-search down' "
                    "or set STATE_DIR to another folder"
                ) from None
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield

    def launcher_runs(self) -> bool:
        """Whether a launcher holds the lock."""
        try:
            with self._lock.open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def kill_leftovers(rows: Sequence[ProcessRow]) -> list[str]:
    """Kill the processes of a stack whose launcher is gone; returns their names."""
    import psutil

    killed = []
    for row in rows:
        process = find(row)
        if process is None:
            continue
        family = [process, *process.children(recursive=True)]
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=10)
        killed.append(row.name)
    return killed


def stop(file: RecordFile) -> list[str]:
    """Send SIGTERM to the launcher and wait until it has stopped; then kill what is left.

    Returns:
        The names of the processes that were stopped; empty if none was running.

    Raises:
        StackError: the launcher did not stop in time.
    """
    record = file.read()
    if record is None:
        return []
    names = [row.name for row in record.processes if find(row) is not None]
    launcher = find(record.launcher)
    if launcher is not None:
        launcher.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while find(record.launcher) is not None:
            if time.monotonic() > deadline:
                raise StackError(
                    f"process {launcher.pid} did not stop within {STOP_TIMEOUT_SECONDS:.0f} s"
                )
            time.sleep(0.1)
    newest = file.read() or record
    kill_leftovers(newest.processes)
    file.remove()
    return names
