"""What our code uses of other libraries beyond their documentation, and a canary for each use.

A canary raises if the part is gone or behaves otherwise. Such parts change without notice, so
`test_private_parts.py` also fails at a new minor version of a library: then read each `file` again
with the library's changes, and raise the version in `CHECKED`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.architecture import canaries

CHECKED: Final = {
    "aiokafka": "0.14.0",
    "faststream": "0.7.8",
    "huggingface_hub": "2.4.0",
    "numpy": "2.4.6",
    "pillow": "13.0.0",
    "pillow-jxl-plugin": "1.3.8",
    "pytest-xdist": "3.8.0",
    "python": "3.11",
    "tritonclient": "2.73.0",
    "typer": "0.29.2",
    "uvicorn": "0.54.0",
    "watchdog": "7.1.0",
    "weaviate-client": "4.24.1",
}
"""Library -> the version that its rows were checked with."""


@dataclass(frozen=True, slots=True)
class Part:
    """One use of what a library does not document."""

    library: str
    names: tuple[str, ...]
    """Private attributes, and modules that are not documented."""
    file: str
    """Which file of ours uses them."""
    then: str
    """What to do when the canary fails."""
    canary: Callable[[], Awaitable[None] | None]


TABLE: Final = (
    Part(
        "aiokafka",
        ("_send_request", "aiokafka.protocol.admin"),
        "adapters/log/kafka_admin.py",
        "delete the group with a public method of the admin client, if there is one by now",
        canaries.admin_sends_requests,
    ),
    Part(
        "aiokafka",
        (
            *("_closed", "_sender", "_message_accumulator", "_batches", "_pending_batches"),
            *("_drain_waiter", "_msg_futures", "_conns", "_writer", "aiokafka.protocol.metadata"),
        ),
        "adapters/log/kafka_producer.py",
        "see how `AIOKafkaProducer.stop` ends its parts now, and end each of them in `_abandon`",
        canaries.producer_is_ended_by_its_parts,
    ),
    Part(
        "aiokafka",
        ("aiokafka.producer.message_accumulator",),
        "adapters/log/kafka.py",
        "find what reads the metadata of all topics without a topic, and what builds batches",
        canaries.client_reads_metadata,
    ),
    Part(
        "aiokafka",
        ("_coordinator",),
        "adapters/log/next_offsets.py",
        "see whether `AIOKafkaConsumer.committed` returns the metadata by now, or what reads it",
        canaries.coordinator_reads_metadata_of_offsets,
    ),
    Part(
        "aiokafka",
        ("aiokafka.coordinator.assignors.sticky.sticky_assignor",),
        "consumers/process/consumer_loop.py",
        "find where the sticky assignor is, or pass another one that moves few partitions",
        canaries.sticky_assignor_is_there,
    ),
    Part(
        "aiokafka",
        ("aiokafka.util",),
        "tests/support/fake_indexing_group.py",
        "find what checks the offsets that are given to `AIOKafkaConsumer.commit`",
        canaries.offsets_are_checked,
    ),
    Part(
        "faststream",
        ("faststream.kafka.message",),
        "consumers/process/consumer_loop.py",
        "see what its default parser returns now; tests/faults/test_rebalance_errors.py runs it",
        canaries.faststream_hands_over_a_batch,
    ),
    Part(
        "watchdog",
        ("watchdog.observers.inotify", "watchdog.observers.inotify_c"),
        "producers/folder/notifications.py",
        "see where dropped events and refused watches are handled now, and report them from there",
        canaries.watchdog_calls_what_is_overridden,
    ),
    Part(
        "tritonclient",
        ("tritonclient/grpc/model_config_pb2.py",),
        "models/triton_config.py",
        "find the generated module with the message ModelConfig, or generate it",
        canaries.configuration_messages_load_alone,
    ),
    Part(
        "weaviate-client",
        ("the logger weaviate-client, and its module retry",),
        "adapters/index/writes.py",
        "find how the client shows that it has sent a batch again: such a write must count as "
        "failed, or a killed server may keep vectors out of its index",
        canaries.client_logs_its_repetitions,
    ),
    Part(
        "weaviate-client",
        ("weaviate.collections.classes.filters",),
        "adapters/index/filters.py",
        "find the type that the methods of `Filter` return; it is used in annotations only",
        canaries.filters_are_of_one_type,
    ),
    Part(
        "pillow",
        ("PIL.PngImagePlugin",),
        "imaging/png_chunks.py",
        "see how PngImageFile reads chunks and tests their checksums now, and skip damaged "
        "ancillary ones there",
        canaries.png_chunks_are_read_by_our_class,
    ),
    Part(
        "pillow",
        ("PIL.TiffImagePlugin",),
        "imaging/tiffs.py",
        "see how TiffImageFile chooses the mode now, and add 12-bit greys there",
        canaries.tiff_modes_are_a_table,
    ),
    Part(
        "pillow",
        ("applist", "layer", "PIL.JpegImagePlugin"),
        "imaging/upright.py",
        "find the segments and components of a JPEG (also in imaging/decode_memory.py): without "
        "them unusual EXIF is not read, and the memory of progressive files is underestimated",
        canaries.jpeg_has_its_segments,
    ),
    Part(
        "pillow",
        ("dispose_extent", "default_image"),
        "imaging/frames.py",
        "find the extent of a GIF's first frame, and whether a PNG's first image is a frame",
        canaries.animations_have_their_frames,
    ),
    Part(
        "pillow-jxl-plugin",
        ("jpeg",),
        "imaging/upright.py",
        "find whether the file holds a JPEG, which the plugin returns without turning it",
        canaries.jpeg_xl_says_whether_it_holds_a_jpeg,
    ),
    Part(
        "numpy",
        ("numpy._core.numeric",),
        "imaging/sandbox/process.py",
        "add the function that unpickles an array with protocol 5 to `_DATA`",
        canaries.arrays_are_unpickled_by_one_function,
    ),
    Part(
        "python",
        ("multiprocessing.reduction",),
        "imaging/sandbox/worker.py",
        "find how a descriptor is passed to a process of a fork server",
        canaries.descriptors_are_passed_on,
    ),
    Part(
        "huggingface_hub",
        ("HfHubHTTPError.__bases__",),
        "models/hub_errors.py",
        "find the base class of the errors of its HTTP client, and use it as `TRANSPORT`",
        canaries.transport_errors_have_one_base,
    ),
    Part(
        "uvicorn",
        ("should_exit", "capture_signals"),
        "gateway/__main__.py",
        "see how a server is told to end, and who handles SIGTERM while it serves and afterwards",
        canaries.server_ends_when_it_is_told,
    ),
    Part(
        "pytest-xdist",
        ("_split_scope",),
        "tests/conftest.py",
        "see how LoadScopeScheduling groups tests now: those that share servers must stay together",
        canaries.scopes_decide_what_a_worker_runs,
    ),
    Part(
        "typer",
        ("_completion_scripts", "_completion_shared"),
        "cli/completion.py",
        "see how Typer's scripts for zsh and fish call the program now, and give them its path",
        canaries.completion_scripts_call_the_program_by_name,
    ),
)
