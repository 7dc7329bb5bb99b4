"""What counts as a sign of life."""

import asyncio

import pytest

from stack.probes import http_probe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "ready", "alive"),
    [(200, True, True), (401, False, True), (429, False, True), (404, False, False)]
    + [(status, False, False) for status in (500, 503)],
)
async def test_a_refused_request_can_count_as_alive(status: int, ready: bool, alive: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        assert await http_probe(url)() is ready
        assert await http_probe(url, accept_refusal=True)() is alive
    assert not await http_probe(url, accept_refusal=True)()
