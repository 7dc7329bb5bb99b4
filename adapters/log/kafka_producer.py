"""Ending an idempotent producer that gave up on a batch, so that it writes nothing afterwards.

aiokafka's `stop` flushes, which never ends while the broker is down, and cancelling it leaves the
sender's task and its connections alive: minutes later an old batch would be written after newer
records of the same key. So its parts are ended one by one here. They are private to aiokafka 0.14;
`tests/architecture/test_private_parts.py` fails when they change.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

logger = logging.getLogger(__name__)

END_SECONDS: Final = 1.0
TRIES: Final = 5
SETTLE_SECONDS: Final = 0.5


async def abandon(producer: AIOKafkaProducer) -> None:
    """End the producer at once: its tasks, its connections and its unsent batches.

    Completes even if the caller is cancelled meanwhile.
    """
    await asyncio.shield(asyncio.ensure_future(_abandon(producer)))


async def _abandon(producer: AIOKafkaProducer) -> None:
    producer._closed = True
    sender = producer._sender.sender_task if producer._sender is not None else None
    for _ in range(TRIES):
        for connection in list(producer.client._conns.values()):
            if connection._writer is not None:
                _reset(connection._writer.transport)
        await producer.client.close()
        if sender is None or sender.done():
            break
        # After the first cancellation it still awaits its requests, which have just failed.
        sender.cancel()
        await asyncio.wait([sender], timeout=END_SECONDS)
    else:
        logger.error("the sender task of a producer does not end: %r", sender)
    _fail_waiting(producer)
    await producer.client.close()


def _reset(transport: asyncio.WriteTransport) -> None:
    """Discard unsent data, here and in the kernel, rather than send it on closing."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        # Enabled, with a timeout of 0 s: socket(7), SO_LINGER.
        linger = struct.pack("ii", 1, 0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _fail_waiting(producer: AIOKafkaProducer) -> None:
    """Fail the futures of unsent messages, and mark those without a waiter as retrieved."""
    accumulator = producer._message_accumulator
    batches = [*(b for each in accumulator._batches.values() for b in each)]
    batches += accumulator._pending_batches
    # A batch that awaits a retry has left this set, and failing it removes it once more.
    accumulator._pending_batches.update(batches)
    accumulator.fail_all(KafkaError("the producer was abandoned"))
    for batch in batches:
        waiters = (batch.future, batch._drain_waiter, *(each for each, _ in batch._msg_futures))
        for future in waiters:
            if future.done() and not future.cancelled():
                future.exception()  # Otherwise asyncio logs that it was never retrieved.


async def settled(producer: AIOKafkaProducer) -> None:
    """Return when the broker has handled every request of a former producer.

    The broker may still read a request that arrived before its connection ended. In each round it
    reads every connection that has data, and it handles requests in the order of arrival. So once
    it has answered two later requests on a new connection, with a pause between them for its
    threads, an earlier request is either written or lost.
    """
    await _query_every_broker(producer)
    await asyncio.sleep(SETTLE_SECONDS)
    await _query_every_broker(producer)


async def _query_every_broker(producer: AIOKafkaProducer) -> None:
    client = producer.client
    await client.fetch_all_metadata()
    for broker in client.cluster.brokers():
        await client.send(broker.nodeId, MetadataRequest([]))
