"""`up --detach`: a launcher in the background."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from stack import state_folder
from stack.errors import StackError
from stack.record import Record, RecordFile
from stack.settings import ROOT, StackSettings


def up_detached(
    settings: StackSettings, *, servers_only: bool, output: TextIO | None = None
) -> Record:
    """Start a launcher in the background and return when everything is ready.

    Args:
        settings: what it starts, and where.
        servers_only: whether our own processes stay out.
        output: where what it prints is copied to; standard output if none is given.

    Raises:
        StackError: it exited before that.
    """
    state_folder.claim(settings.state)
    file = RecordFile(settings.run)
    with file.locked():
        pass  # Fails here if another launcher is running, before a second one is started.
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.launcher_log
    arguments = ["--servers-only"] if servers_only else []
    log.unlink(missing_ok=True)
    with log.open("ab") as printed:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            cwd=ROOT,
            env={**os.environ, "INDEXERS": str(settings.indexers), "NO_FOLLOW": "1"},
            start_new_session=True,
        )
    position = 0
    try:
        while True:
            status = launcher.poll()
            record = file.read()
            position = _copy_new(log, position, output or sys.stdout)
            if status is not None:
                raise StackError(f"it did not start; the log is {log}")
            if record is not None and record.launcher.pid == launcher.pid and record.ready:
                _copy_new(log, position, output or sys.stdout)
                # The launcher outlives this process; without this, subprocess would warn about it.
                launcher.returncode = 0
                return record
            time.sleep(0.1)
    except BaseException:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait()
        raise


def _copy_new(log: Path, position: int, output: TextIO) -> int:
    with log.open("rb") as file:
        file.seek(position)
        new = file.read()
    output.write(new.decode(errors="replace"))
    output.flush()
    return position + len(new)
