"""Another gateway, with other settings, on a running system's servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from stack.tcp_ports import free_ports
from tests.conftest import ROOT
from tests.e2e.conftest import System, eventually


@dataclass
class Gateway:
    """A gateway process and its address."""

    url: str
    process: asyncio.subprocess.Process
    log: Path

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def another_gateway(system: System, folder: Path, **settings: str) -> AsyncIterator[Gateway]:
    """Start it, wait until it is healthy, and stop it at the end."""
    (port,) = free_ports(1)
    servers = system.servers
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KAFKA_BOOTSTRAP_SERVERS": servers.kafka,
        "WEAVIATE_URL": servers.weaviate_url,
        "WEAVIATE_GRPC_PORT": str(servers.weaviate_grpc_port),
        "TRITON_URL": servers.triton_url,
        "IMAGES_DIR": str(system.images),
        "JWT_SECRET_FILE": str(folder / "jwt.secret"),
        "THUMBNAILS_DIR": str(folder / "thumbnails"),
        "GATEWAY_PORT": str(port),
        **settings,
    }
    log = folder / "gateway.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    gateway = Gateway(f"http://127.0.0.1:{port}", process, log)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:

            async def healthy() -> bool:
                return (await client.get("/api/v1/healthcheck")).status_code == 200

            await eventually(healthy, seconds=90)
        yield gateway
    finally:
        if process.returncode is None:
            await gateway.stop()
