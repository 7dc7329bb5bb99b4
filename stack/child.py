"""Replace this process by a command that the kernel kills when the launcher dies.

Run as `python -I -S child.py <parent pid> <command> …`. So a launcher that is killed by SIGKILL,
and cannot clean up, leaves no server behind (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the parent-death signal, then exec."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        # The parent may have died before the line above took effect.
        if os.getppid() != parent:
            sys.exit("the launcher has ended")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
