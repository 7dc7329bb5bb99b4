"""`status` asks all servers at once, and the gateway for what it knows."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from cli import answers
from cli.servers import watcher_status
from cli.status import _print_status, status
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
from stack import questions
from stack.record import ProcessRow, Record, RecordFile
from stack.settings import StackSettings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
ADVICE = {"model": "lite", "ratings": 3, "mean": 8.0, "threshold": 5.0, "low": False}


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(bodies: dict[str, Any], delay: float = 0.0) -> Handler:
    """Answers each path with its body, and others with 404."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        await asyncio.sleep(delay)
        status = 200 if path in bodies else 404
        body = json.dumps(bodies.get(path, {})).encode()
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    return answer


def kafka(brokers: int, delay: float = 0.0) -> Handler:
    """Answers a request for the metadata with this number of brokers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        request = await reader.readexactly(size)
        key, version, correlation = struct.unpack(">hhi", request[:8])
        assert (key, version) == (3, 1)
        await asyncio.sleep(delay)
        body = struct.pack(">ii", correlation, brokers)
        writer.write(struct.pack(">i", len(body)) + body)
        await writer.drain()
        writer.close()

    return answer


def gateway(**more: Any) -> dict[str, Any]:
    return {
        "/api/v1/healthcheck": {"status": "ok", "collection": "Images_lite", "images": 4},
        "/api/v1/state": {"images": 4, "waiting": 7},
        "/api/v1/advice": ADVICE,
        **more,
    }


@asynccontextmanager
async def servers(folder: Path, delay: float, **more: Any) -> AsyncIterator[StackSettings]:
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        yield StackSettings(
            state_dir=folder,
            kafka_port=await start(listening(kafka(1, delay))),
            weaviate_port=await start(listening(http({"/v1/.well-known/ready": {}}, delay))),
            triton_port=await start(listening(http({"/v2/health/ready": {}}, delay))),
            gateway_port=await start(listening(http(gateway(**more), delay))),
        )


@pytest.mark.slow
async def test_all_are_asked_at_once(tmp_path: Path) -> None:
    async with servers(tmp_path, delay=0.4) as settings, asyncio.timeout(1.9):
        # One after the other, these six answers would take 2.4 s.
        found = await answers.ask(settings)
    assert found["servers"] == {"kafka": True, "weaviate": True, "triton": True}
    assert found["gateway"]["status"] == "ok"
    assert found["lag"] == 7
    assert found["advice"] == ADVICE
    assert list(found) == ["servers", "gateway", "lag", "watcher", "advice"]


async def test_what_the_gateway_does_not_say_is_asked_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def read(_: Any, seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(answers, "_from_servers", read)
    async with servers(tmp_path, 0.0, **{"/api/v1/state": {"waiting": None}}) as settings:
        found = await answers.ask(settings)
    assert asked == [answers.GATEWAY_SECONDS]
    assert found["lag"] is None


async def test_without_a_gateway_nothing_more_is_asked(tmp_path: Path) -> None:
    settings = StackSettings(
        state_dir=tmp_path, kafka_port=9, weaviate_port=9, triton_port=9, gateway_port=9
    )
    found = await answers.ask(settings)
    assert found["servers"] == {"kafka": False, "weaviate": False, "triton": False}
    assert found["gateway"]["status"] == "unreachable"
    assert (found["lag"], found["advice"], found["watcher"]) == (None, None, {})


@pytest.mark.parametrize(
    ("step", "started", "shown"),
    [
        (AdoptionStep.LOADING, True, True),
        (AdoptionStep.LOADING, False, False),
        (AdoptionStep.DECLINED, True, False),
    ],
)
def test_the_change_to_another_model_is_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: AdoptionStep,
    started: bool,
    shown: bool,
) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    for name in ("KAFKA_PORT", "WEAVIATE_PORT", "TRITON_PORT", "GATEWAY_PORT"):
        monkeypatch.setenv(name, "9")
    change = AdoptionStatus(model="better", instead_of="lite", step=step)
    AdoptionFile(StackSettings().adoption).write(change)
    if started:
        launcher = ProcessRow(name="launcher", state="running")
        file = RecordFile(StackSettings().run)
        file.write(Record(launcher=launcher, gateway_url="http://x", processes=[]))
    with pytest.raises(typer.Exit):
        status()
    assert (f"model: {change.sentence()}" in capsys.readouterr().out) is shown
    with pytest.raises(typer.Exit):
        status(as_json=True)
    assert json.loads(capsys.readouterr().out)["adoption"] == change.as_json()


@pytest.mark.parametrize("value", [None, 3, "a\udcff\x1b[2J", [], [1], {}, {"a": None}, {"a": [1]}])
def test_an_unexpected_answer_is_shown_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    settings, names = StackSettings(state_dir=tmp_path), ("state", "problem", "sources", "low")
    for body in ({each: value} for each in names):
        found: dict[str, Any] = {
            "processes": [],
            "servers": {"kafka": True},
            "gateway": {"url": "http://x", "status": "unavailable", "detail": value},
            "lag": None,
            "watcher": body,
            "advice": body,
        }
        _print_status(found, settings, None)
    assert "\x1b" not in capsys.readouterr().out
    settings.run.mkdir()
    settings.watcher_status.write_text(json.dumps(value))
    assert watcher_status(settings) == (value if isinstance(value, dict) else {})


def test_a_truncated_status_of_the_watcher_is_none(tmp_path: Path) -> None:
    settings = StackSettings(state_dir=tmp_path)
    settings.run.mkdir()
    settings.watcher_status.write_text('{"state": "watch')
    assert watcher_status(settings) == {}


class TestQuestions:
    @pytest.mark.parametrize(("brokers", "answers"), [(1, True), (0, False), (-1, False)])
    async def test_kafka_answers_with_its_brokers(self, brokers: int, answers: bool) -> None:
        async with listening(kafka(brokers)) as port:
            assert await questions.kafka_answers(f"127.0.0.1:{port}") is answers
            assert await questions.kafka_answers(f"127.0.0.1:9, 127.0.0.1:{port}") is answers

    async def test_a_broker_without_a_port_has_kafkas(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with listening(kafka(1)) as port:
            monkeypatch.setattr(questions, "KAFKA_PORT", port)
            assert await questions.kafka_answers("127.0.0.1")

    @pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "", "127.0.0.1:many"])
    async def test_no_broker_is_no_answer(self, address: str) -> None:
        assert not await questions.kafka_answers(address)

    @pytest.mark.slow
    async def test_another_protocol_is_no_answer(self) -> None:
        async with listening(http({})) as port:
            assert not await questions.kafka_answers(f"127.0.0.1:{port}")
        async with listening(kafka(1)) as port:
            with pytest.raises(questions.NoAnswer):
                await questions.get_json(f"http://127.0.0.1:{port}/", 0.5)

    @pytest.mark.slow
    async def test_a_silent_server_is_no_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        monkeypatch.setattr(questions, "SECONDS", 0.2)
        async with listening(silent) as port:
            assert not await questions.kafka_answers(f"127.0.0.1:{port}")
            with pytest.raises(questions.NoAnswer):
                await questions.get_json(f"http://127.0.0.1:{port}/", 0.2)

    async def test_a_body_that_is_no_json(self) -> None:
        async def text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nhtml")
            writer.close()

        async with listening(text) as port:
            assert await questions.get_json(f"http://127.0.0.1:{port}/") == (503, None)
            assert not await questions.http_answers(f"http://127.0.0.1:{port}/")
