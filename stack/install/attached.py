"""Run a command that ends, with every process that it has started, when its parent ends.

Run as `python -I -S attached.py <parent pid> <command> …`, as the leader of a session. The kernel
tells this process when the parent is gone, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG); it then
kills the whole process group, of which the compilers that `go` and `uv` start are members.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def _kill_group(*_: object) -> None:
    os.killpg(0, signal.SIGKILL)


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGTERM, _kill_group)
    if sys.platform != "linux":
        return
    try:
        import ctypes
    except ImportError:  # A Python without libffi: the locks alone keep two commands apart.
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        sys.exit("the command that started this has ended")


def main() -> int:
    """Run the command. Returns its exit status, as a shell does."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    _end_with(parent)
    child = os.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)  # noqa: S606
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
