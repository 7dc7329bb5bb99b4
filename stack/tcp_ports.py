"""Whether a port is free, and which process uses it if not."""

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
    """`count` different ports that are free now, below the ephemeral range.

    Ephemeral ports (from 32768 on, on Linux) could be taken by any outgoing connection meanwhile.
    """
    candidates = random.sample(PRIVATE_PORTS, len(PRIVATE_PORTS))
    found = list(itertools.islice(filter(_is_free, candidates), count))
    if len(found) < count:
        raise StackError(f"fewer than {count} ports from {PRIVATE_PORTS.start} on are free")
    return found


def check(ports: Mapping[str, int]) -> None:
    """Make sure that each port (variable -> number) can be bound.

    Raises:
        StackError: names the ports in use, their variables and, if known, the process using them.
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
        # Servers set it too, so a port with connections in TIME_WAIT counts as free.
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
        # A process of another user, which we may not inspect.
        return ""
    return ""
