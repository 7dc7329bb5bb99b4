"""Whether a port is free, and who holds it if not."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Mapping

import psutil

from stack.errors import StackError

HOST = "127.0.0.1"
PRIVATE_PORTS = range(15_000, 30_000)


def free_ports(count: int) -> list[int]:
    """That many different ports which are free now, below the range used for outgoing calls.

    Ports of that range (from 32768 on, on Linux) could be taken by any connection meanwhile.
    """
    candidates = random.sample(PRIVATE_PORTS, len(PRIVATE_PORTS))
    found = list(itertools.islice(filter(_is_free, candidates), count))
    if len(found) < count:
        raise StackError(f"there are no {count} free ports from {PRIVATE_PORTS.start} on")
    return found


def check(ports: Mapping[str, int]) -> None:
    """Make sure that each port (variable -> number) can be listened on.

    Raises:
        StackError: names the busy ports, their variables and, where it can be told, who has them.
    """
    by_number: dict[int, str] = {}
    for variable, number in ports.items():
        if number in by_number:
            raise StackError(f"{by_number[number]} and {variable} are both {number}")
        by_number[number] = variable
    busy = [
        f"port {number} is in use{_holder(number)}; set {variable} to another one"
        for number, variable in by_number.items()
        if not _is_free(number)
    ]
    if busy:
        raise StackError("\n".join(busy))


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        # Servers set it too, so a port of a connection that is just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
    return True


def _holder(number: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == number and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (process {connection.pid})"
    except psutil.Error:
        # Another user's process: its name is not ours to know.
        return ""
    return ""
