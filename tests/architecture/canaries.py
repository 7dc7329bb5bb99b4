"""Each canary raises if what it names is gone from a library, or behaves otherwise."""

import importlib
import inspect
import io
import pickle
import sys
import tempfile
import threading
from multiprocessing import reduction, resource_sharer
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
import uvicorn
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.util import commit_structure_validate
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage
from grpc.aio import AioRpcError, Metadata  # type: ignore[import-untyped]
from PIL import Image, PngImagePlugin, TiffImagePlugin
from typer import _completion_shared
from weaviate import retry
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn
from xdist.scheduler import LoadScopeScheduling

from adapters.index import writes
from adapters.log.kafka_producer import abandon
from cli import completion
from imaging.png_chunks import LenientStream, be_lenient
from imaging.sandbox import process
from models import triton_config
from models.hub_errors import TRANSPORT

ADDRESS: Final = "127.0.0.1:9"
"""Nothing listens there, and nothing here connects."""


async def admin_sends_requests() -> None:
    class Client:
        async def send(self, node: int, request: object) -> tuple[int, object]:
            return node, request

    admin = AIOKafkaAdminClient(bootstrap_servers=ADDRESS)
    admin._client = Client()
    request = DeleteGroupsRequest(["g"])
    assert await admin._send_request(request, 3) == (3, request)
    response = request.build(_versions(DeleteGroupsRequest)[-1]).RESPONSE_TYPE
    assert "results" in response.SCHEMA.names


def _versions(request: type) -> list[Any]:
    module = importlib.import_module(request.__module__)
    return [
        each
        for name, each in sorted(vars(module).items())
        if name.startswith(f"{request.__name__}_v")
    ]


async def producer_is_ended_by_its_parts() -> None:
    producer = AIOKafkaProducer(bootstrap_servers=ADDRESS, enable_idempotence=True)
    assert producer._closed is False
    assert producer._sender is not None
    assert producer._sender.sender_task is None
    assert producer.client._conns == {}
    accumulator = producer._message_accumulator
    assert callable(accumulator.fail_all)
    assert not accumulator._batches
    assert not accumulator._pending_batches
    partition = TopicPartition("t", 0)
    sent = await accumulator.add_message(partition, b"k", b"v", 1.0)
    (batch,) = accumulator._batches[partition]
    assert [future for future, _ in batch._msg_futures] == [sent]
    assert not batch.future.done()
    assert not batch._drain_waiter.done()
    await abandon(producer)
    assert producer._closed is True
    assert isinstance(sent.exception(), KafkaError)
    assert batch._drain_waiter.done()
    assert AIOKafkaConnection("127.0.0.1", 9)._writer is None


async def client_reads_metadata() -> None:
    producer = AIOKafkaProducer(bootstrap_servers=ADDRESS)
    assert inspect.iscoroutinefunction(producer.client.fetch_all_metadata)
    assert list(inspect.signature(producer.client.send).parameters)[:2] == ["node_id", "request"]
    assert not producer.client.cluster.brokers()
    builder = producer.create_batch()
    assert builder.append(key=b"k", value=b"v", timestamp=None, headers=[]) is not None
    await producer.stop()


async def coordinator_reads_metadata_of_offsets() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=ADDRESS, group_id="g")
    assert consumer._coordinator is None, "it is created by `start`"
    read = GroupCoordinator.fetch_committed_offsets
    assert inspect.iscoroutinefunction(read)
    assert list(inspect.signature(read).parameters) == ["self", "partitions"]
    assert OffsetAndMetadata._fields == ("offset", "metadata")
    await consumer.stop()


def sticky_assignor_is_there() -> None:
    assert StickyPartitionAssignor.name == "sticky"


def offsets_are_checked() -> None:
    partition = TopicPartition("t", 0)
    assert commit_structure_validate({partition: (1, "m")}) == {partition: (1, "m")}


def faststream_hands_over_a_batch() -> None:
    batch = KafkaMessage(raw_message=(), body=b"", consumer=FAKE_CONSUMER)
    assert batch.raw_message == ()
    subscriber = KafkaBroker(ADDRESS).subscriber("t", batch=True)
    assert subscriber.consumer is None, "it is created by `start`"


def watchdog_calls_what_is_overridden() -> None:
    if not sys.platform.startswith("linux"):
        return
    from watchdog.events import FileCreatedEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import InotifyConstants, InotifyFD

    seen: dict[str, Any] = {}
    arrived = threading.Event()

    class Recorder(InotifyFD):
        def run(self) -> None:
            seen["run"] = True
            super().run()

        def add_callback(self, path: bytes, mask: Any, callback: Any, id_: Any) -> Any:
            seen["add_callback"] = path
            return super().add_callback(path, mask, callback, id_)

        def handle_event(self, event: Any) -> None:
            seen["handle_event"] = (event.mask, event.is_queue_overflow)
            super().handle_event(event)
            arrived.set()

    recorder = Recorder()
    # Names that our subclasses use for themselves.
    assert not {"_mailbox", "_fd"} & (vars(recorder).keys() | vars(BaseObserver).keys())
    recorder.start()
    observer = BaseObserver(InotifyEmitter, inotify_fd=recorder)
    with tempfile.TemporaryDirectory() as folder:
        observer.schedule(FileSystemEventHandler(), folder, event_filter=[FileCreatedEvent])
        observer.start()
        Path(folder, "a").touch()
        assert arrived.wait(10)
        observer.stop()
        observer.join(10)
        recorder.stop()
        recorder.join(10)
    assert seen["run"]
    assert seen["add_callback"] == folder.encode()
    assert seen["handle_event"][1] is False
    assert InotifyConstants.IN_UNMOUNT == 0x2000


def configuration_messages_load_alone() -> None:
    config = triton_config.parse('name: "a" instance_group { count: 2 kind: KIND_CPU }')
    assert config.name == "a"
    triton_config.set_instances(config, 3, gpu=True)
    assert "KIND_GPU" in triton_config.write(config)


async def client_logs_its_repetitions() -> None:
    attempts: list[int] = []

    async def call() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata())
        return "done"

    async def no_pause(_: float) -> None:
        return None

    before = writes._repetitions.seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "asyncio", type("", (), {"sleep": staticmethod(no_pause)}))
        assert await retry._Retry().awith_exponential_backoff(0, "insert", call) == "done"
    assert writes._repetitions.seen == before + 1


def filters_are_of_one_type() -> None:
    condition = Filter.by_property("a").equal(1)
    assert isinstance(condition, FilterReturn)
    assert isinstance(Filter.all_of([condition, condition]), FilterReturn)


def _png(**options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 9).save(file, "PNG", **options)
    return file.getvalue()


def png_chunks_are_read_by_our_class() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PngStream", "MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY"):
            patch.setattr(PngImagePlugin, name, getattr(PngImagePlugin, name))
        be_lenient()
        # The checksum of this comment is wrong, and so is its content.
        damaged = b"\0\0\0\x04zTXtabcd\0\0\0\0"
        whole = _png()
        with Image.open(io.BytesIO(whole[:33] + damaged + whole[33:])) as image:
            stream: Any = image.png  # type: ignore[attr-defined]
            assert isinstance(stream, LenientStream)
            assert stream.im_rawmode == "L"
            assert "transparency" not in stream.im_info
            image.load()


def tiff_modes_are_a_table() -> None:
    key = (b"II", 1, (1,), 1, (8,), ())
    assert TiffImagePlugin.OPEN_INFO[key] == ("L", "L")
    image: Image.Image = Image.new("L", (1, 1))
    image.im = Image.new("L", (1, 1), 7).im
    assert image.getpixel((0, 0)) == 7


def jpeg_has_its_segments() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0110] = "camera"
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif, subsampling=2, progressive=True)
    with Image.open(file) as image:
        segments: Any = image.applist  # type: ignore[attr-defined]
        assert [content[:6] for name, content in segments if name == "APP1"] == [b"Exif\0\0"]
        layers: Any = image.layer  # type: ignore[attr-defined]
        assert [each[:3] for each in layers] == [(1, 2, 2), (2, 1, 1), (3, 1, 1)]
        assert image.info["progressive"]


def animations_have_their_frames() -> None:
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    with Image.open(file) as image:
        assert image.dispose_extent == (0, 0, 8, 8)  # type: ignore[attr-defined]
    later = Image.new("L", (8, 8), 5)
    animated = _png(save_all=True, append_images=[later], default_image=True)
    with Image.open(io.BytesIO(animated)) as image:
        assert image.default_image is True  # type: ignore[attr-defined]
        assert image.is_animated is True  # type: ignore[attr-defined]


def jpeg_xl_says_whether_it_holds_a_jpeg() -> None:
    import pillow_jxl  # noqa: F401 (registers JPEG XL with Pillow)

    for mode, options in (("RGB", {}), ("RGB", {"lossless_jpeg": False})):
        file = io.BytesIO()
        Image.new(mode, (8, 8)).save(file, "JXL", **options)
        with Image.open(file) as image:
            assert not image.jpeg  # type: ignore[attr-defined]


def arrays_are_unpickled_by_one_function() -> None:
    sent = np.arange(3)
    assert (process._load(pickle.dumps(sent, protocol=5), ()) == sent).all()


def descriptors_are_passed_on() -> None:
    # While no process is started, the descriptor is passed through a socket.
    assert isinstance(reduction.DupFd(0), resource_sharer.DupFd)
    assert callable(resource_sharer.DupFd.detach)


def transport_errors_have_one_base() -> None:
    client = importlib.import_module(TRANSPORT.__module__.partition(".")[0])
    assert issubclass(client.ConnectError, TRANSPORT)
    assert issubclass(client.TimeoutException, TRANSPORT)


def server_ends_when_it_is_told() -> None:
    server = uvicorn.Server(uvicorn.Config("gateway.app:create_app", factory=True))
    assert server.should_exit is False
    assert callable(server.capture_signals)


def scopes_decide_what_a_worker_runs() -> None:
    assert list(inspect.signature(LoadScopeScheduling._split_scope).parameters) == [
        "self",
        "nodeid",
    ]


def completion_scripts_call_the_program_by_name() -> None:
    for shell, call in completion.CALLS.items():
        assert _completion_shared._completion_scripts[shell].count("".join(call)) in (1, 2)
