"""Ending an idempotent producer that gave up on a batch, so that nothing of it is written any more.

aiokafka's `stop` flushes, which a broker that is down holds up for ever, and cancelling it leaves
the sender's task and its connections alive: minutes later an old batch would be written behind
newer records of the same key. So the parts are ended one by one here. They are private to
aiokafka 0.14; `tests/faults/test_07_discarded_producer.py` fails when they change.
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
    """End it at once: its tasks, its connections and what it still had to send.

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
        # At the first cancellation it waits for its requests, which have just failed.
        sender.cancel()
        await asyncio.wait([sender], timeout=END_SECONDS)
    else:
        logger.error("a producer's sender does not end: %r", sender)
    _fail_waiting(producer)
    await producer.client.close()


def _reset(transport: asyncio.WriteTransport) -> None:
    """Throw away what was not sent yet, here and in the kernel, rather than send it at the end."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        # On, and for no time: socket(7), SO_LINGER.
        linger = struct.pack("ii", 1, 0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _fail_waiting(producer: AIOKafkaProducer) -> None:
    """Whoever still waits for a message learns that it was given up; others need not be told."""
    accumulator = producer._message_accumulator
    batches = [*(b for each in accumulator._batches.values() for b in each)]
    batches += accumulator._pending_batches
    # A batch that was to be sent again left this set, of which its end takes it out once more.
    accumulator._pending_batches.update(batches)
    accumulator.fail_all(KafkaError("the producer was given up"))
    for batch in batches:
        waiters = (batch.future, batch._drain_waiter, *(each for each, _ in batch._msg_futures))
        for future in waiters:
            if future.done() and not future.cancelled():
                future.exception()  # Else it is logged that nobody looked at it.


async def settled(producer: AIOKafkaProducer) -> None:
    """Return when the broker has dealt with whatever a former producer had sent to it.

    A request that reached the broker's machine before its connection ended may still be read. The
    broker reads every connection that has something at each turn, and handles requests in the
    order of their arrival. So once it has answered later requests on a new connection, with a pause
    between them for its threads, an earlier one is written or gone.
    """
    await _ask_every_broker(producer)
    await asyncio.sleep(SETTLE_SECONDS)
    await _ask_every_broker(producer)


async def _ask_every_broker(producer: AIOKafkaProducer) -> None:
    client = producer.client
    await client.fetch_all_metadata()
    for broker in client.cluster.brokers():
        await client.send(broker.nodeId, MetadataRequest([]))
