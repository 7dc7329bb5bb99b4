"""The parts of aiokafka that ending a producer depends on."""

import asyncio
from importlib.metadata import version

from aiokafka import AIOKafkaProducer

from adapters.log.kafka_producer import abandon


async def test_the_private_parts_are_what_they_were() -> None:
    """Where this fails, read `adapters.log.kafka_producer` against the new version of aiokafka."""
    assert version("aiokafka").startswith("0.14.")
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9", enable_idempotence=True)
    assert producer._closed is False
    assert producer._sender is not None
    assert producer._sender.sender_task is None
    assert producer.client._conns == {}
    assert callable(producer._message_accumulator.fail_all)
    assert not producer._message_accumulator._batches
    assert not producer._message_accumulator._pending_batches
    await abandon(producer)
    assert producer._closed is True


async def test_ending_one_that_never_connected_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9", enable_idempotence=True)
    starting = asyncio.create_task(producer.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await abandon(producer)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
