"""The launcher's parts: ports, preparation, lock, back-off, supervision."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from adapters.settings import BadSettings
from stack import tcp_ports as ports
from stack.errors import StackError
from stack.install.preparation import Cache, key_of, remove_tree, run
from stack.install.progress import Lines
from stack.record import ProcessRow, Record, RecordFile, find, identity, kill_leftovers
from stack.settings import StackSettings
from stack.supervisor import (
    CHILD,
    FIRST_BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    ProcessSpec,
    ProcessState,
    SupervisedProcess,
    Supervisor,
    backoff,
)


def silent(_: str) -> None:
    """For what says what it does."""


class TestSettings:
    def test_an_invalid_port_is_refused(self) -> None:
        with pytest.raises(BadSettings, match="GATEWAY_PORT"):
            StackSettings(gateway_port=70000)

    def test_a_named_server_needs_no_port_here(self) -> None:
        used = StackSettings(
            kafka_bootstrap_servers="k:9092", weaviate_url="http://w:8080", triton_url="http://t"
        ).used_ports()
        assert set(used) == {"GATEWAY_PORT"}
        environment = StackSettings(kafka_bootstrap_servers="k:9092").environment()
        assert environment["KAFKA_BOOTSTRAP_SERVERS"] == "k:9092"
        assert environment["WEAVIATE_URL"] == "http://127.0.0.1:8080"

    def test_children_get_absolute_folders(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMAGES_DIR", "some/pictures")
        monkeypatch.delenv("JWT_SECRET_FILE", raising=False)
        environment = StackSettings().environment()
        assert Path(environment["IMAGES_DIR"]).is_absolute()
        assert Path(environment["JWT_SECRET_FILE"]).is_absolute()


class TestPorts:
    def test_free_ports_differ_and_are_free(self) -> None:
        found = ports.free_ports(20)
        assert len(set(found)) == 20
        ports.check({f"P{number}": number for number in found})

    def test_a_busy_port_is_named_with_its_variable_and_its_holder(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            number = listener.getsockname()[1]
            with pytest.raises(StackError, match=f"port {number} .*{os.getpid()}.*KAFKA_PORT"):
                ports.check({"KAFKA_PORT": number})

    def test_one_port_for_two_servers_is_an_error(self) -> None:
        with pytest.raises(StackError, match="A_PORT and B_PORT"):
            ports.check({"A_PORT": 4000, "B_PORT": 4000})


class TestPreparation:
    def make(self, content: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "thing").write_text(content)

        return write

    def test_a_step_is_done_once(self, tmp_path: Path) -> None:
        printed: list[str] = []
        cache = Cache(tmp_path, printed.append)
        first = cache.get_or_prepare("tool", "1", "the tool", self.make("a"))
        assert cache.get_or_prepare("tool", "1", "the tool", self.make("b")) == first
        assert (first / "thing").read_text() == "a"
        assert printed[0] == "preparing the tool"
        assert len(printed) == 2
        assert cache.get_or_prepare("tool", "2", "the tool", self.make("c")) != first

    def test_a_failed_step_leaves_nothing_and_can_be_repeated(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, silent)

        def half(folder: Path) -> None:
            (folder / "half").write_text("x")
            raise StackError("the network is gone")

        with pytest.raises(StackError, match="network"):
            cache.get_or_prepare("tool", "1", "the tool", half)
        assert [path.name for path in tmp_path.iterdir()] == [".tool.lock"]
        assert (cache.get_or_prepare("tool", "1", "the tool", self.make("a")) / "thing").exists()

    def test_files_left_by_a_killed_step_are_deleted(self, tmp_path: Path) -> None:
        (tmp_path / ".tool-abc.part").mkdir()
        Cache(tmp_path, silent).get_or_prepare("tool", "1", "the tool", self.make("a"))
        assert not list(tmp_path.glob("*.part"))

    def test_read_only_folders_are_removed_too(self, tmp_path: Path) -> None:
        folder = tmp_path / "modules"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("x")
        (folder / "deep").chmod(0o555)
        remove_tree(folder)
        assert not folder.exists()

    def test_a_command_that_fails_shows_its_last_lines(self) -> None:
        program = "print('one'); print('two'); raise SystemExit(3)"
        with pytest.raises(StackError, match=r"(?s)exit status 3.*one\ntwo"):
            run([sys.executable, "-c", program], Lines(silent), "the step")

    def test_the_key_changes_with_the_content(self, tmp_path: Path) -> None:
        file = tmp_path / "lock.txt"
        file.write_text("a==1")
        before = key_of(file)
        file.write_text("a==2")
        assert key_of(file) != before


class TestRecord:
    def test_a_second_launcher_names_the_first(self, tmp_path: Path) -> None:
        first = RecordFile(tmp_path / "run")
        with first.locked():
            assert first.launcher_runs()
            with (
                pytest.raises(StackError, match=f"already running as process {os.getpid()}"),
                RecordFile(tmp_path / "run").locked(),
            ):
                pass
        assert not first.launcher_runs()

    def test_a_record_survives_writing_and_reading(self, tmp_path: Path) -> None:
        file = RecordFile(tmp_path)
        assert file.read() is None
        row = ProcessRow(name="kafka", state="ready", pid=1, created=2.0)
        record = Record(launcher=row, gateway_url="http://x", processes=[row])
        file.write(record)
        assert file.read() == record

    def test_another_process_with_a_reused_id_is_not_ours(self) -> None:
        pid = os.getpid()
        mine = identity(pid)
        assert mine is not None
        assert find(ProcessRow(name="x", state="ready", pid=pid, identity=mine)) is not None
        assert find(ProcessRow(name="x", state="ready", pid=pid, identity=f"{mine}1")) is None

    @pytest.mark.slow
    def test_leftovers_are_killed_with_their_children(self) -> None:
        parent = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
        time.sleep(0.3)
        (child,) = psutil.Process(parent.pid).children()
        row = ProcessRow(name="x", state="ready", pid=parent.pid, identity=identity(parent.pid))
        assert kill_leftovers([row]) == ["x"]
        assert not psutil.pid_exists(parent.pid)
        parent.poll()
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_back_off_grows_to_its_bound_and_is_jittered() -> None:
    assert all(backoff(1) <= FIRST_BACKOFF_SECONDS for _ in range(50))
    assert all(
        LONGEST_BACKOFF_SECONDS / 2 <= backoff(40) <= LONGEST_BACKOFF_SECONDS for _ in range(50)
    )
    assert len({backoff(5) for _ in range(20)}) > 10


@pytest.mark.slow
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', {str(CHILD)!r}, "
        "str(os.getpid()), 'sleep', '600'])\n"
        "time.sleep(1)\nprint(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.name() == "sleep"
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


class TestSupervisor:
    """Real processes: shells that sleep."""

    def spec(self, tmp_path: Path, name: str, script: str, **more: object) -> ProcessSpec:
        async def ready() -> bool:
            return (tmp_path / f"{name}.up").exists()

        options: dict[str, object] = {"ready": ready, "stop_grace": 2.0, **more}
        return ProcessSpec(
            name=name,
            command=["sh", "-c", script],
            log=tmp_path / f"{name}.log",
            **options,  # type: ignore[arg-type]
        )

    async def until(self, check: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.02)

    @pytest.mark.slow
    async def test_order_restart_and_stop(self, tmp_path: Path) -> None:
        printed: list[str] = []
        states: list[dict[str, ProcessState]] = []

        def changed(processes: object) -> None:
            assert isinstance(processes, list)
            states.append({p.spec.name: p.state for p in processes})

        up = "touch {0}/{1}.up; echo $$ >> {0}/{1}.pids; exec sleep 600"
        supervisor = Supervisor(
            [
                self.spec(tmp_path, "server", up.format(tmp_path, "server")),
                self.spec(tmp_path, "once", "exit 0", needs=("server",), one_shot=True),
                self.spec(tmp_path, "ours", up.format(tmp_path, "ours"), needs=("once",)),
            ],
            printed.append,
            changed,
        )
        ready = asyncio.Event()
        work = asyncio.create_task(supervisor.run(ready.set))
        await asyncio.wait_for(ready.wait(), 15)
        assert [line.split()[0] for line in printed] == ["server", "once", "ours"]
        first = supervisor.processes["ours"].pid
        assert first is not None
        os.kill(first, 9)
        await self.until(lambda: supervisor.processes["ours"].pid not in (None, first))
        assert supervisor.processes["ours"].restarts == 1
        assert any("SIGKILL" in line for line in printed)
        pids = [p.pid for p in supervisor.processes.values() if p.pid]
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert states[-1] == {
            "server": ProcessState.STOPPED,
            "once": ProcessState.DONE,
            "ours": ProcessState.STOPPED,
        }

    @pytest.mark.slow
    async def test_a_process_that_never_starts_is_an_error_with_its_log(
        self, tmp_path: Path
    ) -> None:
        spec = self.spec(tmp_path, "bad", "echo no such database; exit 7")
        supervisor = Supervisor([spec], silent, lambda _: None)
        with pytest.raises(StackError, match=r"(?s)bad exited with status 7.*no such database"):
            await asyncio.wait_for(supervisor.run(lambda: None), 30)

    @pytest.mark.slow
    async def test_a_process_that_is_not_ready_in_time_is_an_error(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, "slow", "sleep 600", start_timeout=0.5)
        supervisor = Supervisor([spec], silent, lambda _: None)
        with pytest.raises(StackError, match="not ready within"):
            await asyncio.wait_for(supervisor.run(lambda: None), 30)
        assert supervisor.processes["slow"].pid is None

    @pytest.mark.slow
    async def test_a_process_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        script = f"trap '' TERM; touch {tmp_path}/deaf.up; while :; do sleep 0.1; done"
        printed: list[str] = []
        spec = self.spec(tmp_path, "deaf", script, stop_grace=0.5)
        supervisor = Supervisor([spec], printed.append, lambda _: None)
        ready = asyncio.Event()
        work = asyncio.create_task(supervisor.run(ready.set))
        await asyncio.wait_for(ready.wait(), 15)
        pid = supervisor.processes["deaf"].pid
        assert pid is not None
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not psutil.pid_exists(pid)
        assert any("did not stop in time" in line for line in printed)

    @pytest.mark.slow
    async def test_a_hung_process_is_killed_and_restarted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stack.supervisor.ALIVE_SECONDS", 0.05)
        healthy = tmp_path / "healthy"
        healthy.touch()

        async def alive() -> bool:
            return healthy.exists()

        script = f"touch {tmp_path}/hung.up; exec sleep 600"
        spec = self.spec(tmp_path, "hung", script, alive=alive)
        supervisor = Supervisor([spec], silent, lambda _: None)
        ready = asyncio.Event()
        work = asyncio.create_task(supervisor.run(ready.set))
        await asyncio.wait_for(ready.wait(), 15)
        process: SupervisedProcess = supervisor.processes["hung"]
        first = process.pid
        healthy.unlink()
        await self.until(lambda: process.restarts == 1)
        healthy.touch()
        await self.until(lambda: process.pid not in (None, first))
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
