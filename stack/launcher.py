"""`up` in the foreground, and `prepare`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from adapters.idle_memory import return_memory_when_idle
from stack import adopting, log_files, processes, state_folder
from stack import tcp_ports as ports
from stack.errors import StackError
from stack.install.preparation import Cache
from stack.install.progress import Lines, shown
from stack.install.standard_output import printable
from stack.live_view import LiveView
from stack.record import ProcessRow, Record, RecordFile, identity, kill_leftovers, row_of
from stack.settings import ROOT, StackSettings
from stack.supervisor import ProcessSpec, ProcessState, SupervisedProcess, Supervisor
from stack.triton_models import model_registry

FOLLOW_SECONDS = 0.3
MODELS_SECONDS = 0.5
ROTATE_SECONDS = 5.0


def say(text: str) -> None:
    """Print a message with the time."""
    _print(f"{time.strftime('%H:%M:%S')} {text}")


def _print(text: str) -> None:
    """Print lines. If that fails, the stack still runs, and the launcher's exit status says so at
    its end (`stack.install.standard_output`)."""
    lines = (printable(line.expandtabs()) for line in text.split("\n"))
    with suppress(OSError):
        print("\n".join(lines), flush=True)  # noqa: T201


def prepare(
    settings: StackSettings, tell: Callable[[str], None] | None = None
) -> list[ProcessSpec]:
    """Fetch and build what the servers need, without starting them.

    Args:
        settings: the folders and ports.
        tell: prints a line of what is done; `say` if none is given, or a view in a terminal.

    Raises:
        StackError: a step failed; it can be repeated.
    """
    with shown(say) if tell is None else nullcontext(Lines(tell)) as progress:
        return processes.servers(settings, Cache(settings.cache, progress))


class Launcher:
    """One run of `up`: prepares, starts and supervises everything, and stops it at the end.

    With `follow` it prints what our processes log or, with `live`, shows one table instead.
    """

    def __init__(
        self, settings: StackSettings, *, servers_only: bool, follow: bool, live: bool = False
    ) -> None:
        self._settings = settings
        self._servers_only = servers_only
        self._follow = follow
        self._file = RecordFile(settings.run)
        self._ready = False
        self._view = LiveView(settings, gateway=not servers_only) if live else None
        self._decided: asyncio.Future[adopting.Decision]

    def _say(self, text: str) -> None:
        if self._view is None or not self._view.say(text):
            say(text)

    def run(self) -> None:
        """Run until SIGINT or SIGTERM.

        Raises:
            StackError: the stack could not be started; nothing is left running.
        """
        state_folder.claim(self._settings.state)
        with self._file.locked():
            self._clean_up_after_killed_launcher()
            ports.check(self._settings.used_ports(servers_only=self._servers_only))
            self._make_folders()
            self._write([])
            return_memory_when_idle()
            try:
                asyncio.run(self._supervise())
            finally:
                self._file.remove()

    def _clean_up_after_killed_launcher(self) -> None:
        record = self._file.read()
        if record is not None:
            killed = kill_leftovers(record.processes)
            if killed:
                say(f"stopped processes left by an earlier run: {', '.join(killed)}")
            self._file.remove()

    def _make_folders(self) -> None:
        settings = self._settings
        if not self._servers_only and not settings.images.is_dir():
            raise StackError(
                f"there is no folder {settings.images}; create it or set IMAGES_DIR to another one"
            )
        settings.logs.mkdir(parents=True, exist_ok=True)
        settings.run.mkdir(parents=True, exist_ok=True)
        for log in settings.logs.glob("*.log"):
            if log != settings.launcher_log:
                log_files.rotate(log, keep=settings.log_files)

    async def _supervise(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        work = asyncio.ensure_future(self._work())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            say("stopping")
            work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            say("stopped; the stored data stays in " + str(self._settings.state))
        finally:
            stopping.cancel()

    async def _work(self) -> None:
        settings = self._settings
        self._decided = asyncio.get_running_loop().create_future()
        with shown(say) as progress:
            try:
                # In a thread, so that Ctrl-C works while something is downloaded or built.
                cache = Cache(settings.cache, progress)
                servers = await asyncio.to_thread(processes.servers, settings, cache)
            finally:
                progress.stop()
        # Write the state file: a later download may change the default model, but not for a stack
        # that holds data. This also replaces a damaged file.
        model_registry(settings).record_start()
        specs = [*servers]
        specs.append(processes.provisioning(settings, tuple(spec.name for spec in servers)))
        if not self._servers_only:
            specs += processes.own_processes(settings)
        supervisor = Supervisor(specs, self._say, self._write)
        async with asyncio.TaskGroup() as group:
            if self._view is not None and self._view.possible:
                group.create_task(self._show_table(self._view, supervisor, specs))
            elif self._follow and not self._servers_only:
                group.create_task(self._follow_logs(specs))
            if not self._servers_only:
                group.create_task(self._follow_models(supervisor))
                group.create_task(self._adopt(supervisor))
            group.create_task(self._rotate_logs())
            group.create_task(self._provision_again(supervisor, [spec.name for spec in servers]))
            group.create_task(supervisor.run(lambda: self._announce(supervisor)))

    async def _show_table(
        self, view: LiveView, supervisor: Supervisor, specs: Sequence[ProcessSpec]
    ) -> None:
        """Show the table and, if that fails, what the processes log from then on."""
        await view.run(supervisor.processes, lambda: self._ready)
        if self._follow and not self._servers_only:
            await self._follow_logs(specs, from_now=True)

    async def _provision_again(self, supervisor: Supervisor, servers: Sequence[str]) -> None:
        """Provision again after a server was restarted, since it may have lost its data. If nothing
        was lost, provisioning changes nothing."""
        provided = dict.fromkeys(servers, 0)
        while True:
            await asyncio.sleep(MODELS_SECONDS)
            started = {name: supervisor.processes[name].restarts for name in servers}
            all_ready = all(
                supervisor.processes[name].state is ProcessState.READY for name in servers
            )
            if self._ready and all_ready and started != provided:
                spec = processes.provisioning(self._settings, ())
                with spec.log.open("ab") as log:
                    provision = await asyncio.create_subprocess_exec(
                        *spec.command,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=ROOT,
                        env={**os.environ, **spec.environment},
                    )
                try:
                    if await provision.wait() == 0:
                        provided = started
                finally:
                    if provision.returncode is None:
                        provision.kill()

    async def _rotate_logs(self) -> None:
        settings = self._settings
        while True:
            await asyncio.sleep(ROTATE_SECONDS)
            await asyncio.to_thread(
                log_files.rotate_large, settings.logs, settings.log_bytes, keep=settings.log_files
            )

    def _announce(self, supervisor: Supervisor) -> None:
        # Said first: `up --detach` shows what was said until the record says that all is ready.
        if self._servers_only:
            self._say("servers are ready")
        else:
            decision = adopting.decide(self._settings)
            self._say(decision.sentence)
            self._say(f"ready: {self._settings.gateway_url}")
            self._decided.set_result(decision)
        self._ready = True
        self._write(list(supervisor.processes.values()))

    async def _adopt(self, supervisor: Supervisor) -> None:
        """Move from the bundled model to a better one, unless the user does not want that."""
        decision = await self._decided
        await adopting.keep_adopting(self._settings, supervisor, decision, self._say)

    async def _follow_models(self, supervisor: Supervisor) -> None:
        """Run indexers for exactly those models that are kept current."""
        while True:
            await asyncio.sleep(MODELS_SECONDS)
            if not self._ready:
                continue
            wanted = {
                spec.name: spec
                for model in model_registry(self._settings).read().current
                for spec in processes.indexers(self._settings, model)
            }
            running = [name for name in supervisor.processes if processes.is_indexer(name)]
            for name in running:
                if name not in wanted:
                    self._say(f"{name} is not needed any more")
                    await supervisor.remove(name)
            for name, spec in wanted.items():
                if name not in running:
                    supervisor.add(spec)

    def _write(self, supervised: Sequence[SupervisedProcess]) -> None:
        pid = os.getpid()
        self._file.write(
            Record(
                launcher=ProcessRow(
                    name="launcher", state="running", pid=pid, identity=identity(pid)
                ),
                ready=self._ready,
                gateway_url=self._settings.gateway_url,
                processes=[row_of(process) for process in supervised],
            )
        )

    async def _follow_logs(self, specs: Sequence[ProcessSpec], *, from_now: bool = False) -> None:
        """Print the logs of our own processes; the servers' logs stay in their files."""
        logs = {spec.name: spec.log for spec in specs if processes.is_own_process(spec.name)}
        seen = {
            name: log.stat().st_size if from_now and log.exists() else 0
            for name, log in logs.items()
        }
        while True:
            for name, position in seen.items():
                seen[name] = _show_new(logs[name], name, position)
            await asyncio.sleep(FOLLOW_SECONDS)


def _show_new(log: Path, name: str, position: int) -> int:
    """Print the complete lines after `position`; returns the position after them."""
    if not log.exists():
        return position
    if log.stat().st_size < position:
        position = 0  # It was rotated.
    with log.open("rb") as file:
        file.seek(position)
        new = file.read()
    complete = new[: new.rfind(b"\n") + 1]
    for line in complete.decode(errors="replace").splitlines():
        _print(f"{name:>11} | {line}")
    return position + len(complete)
