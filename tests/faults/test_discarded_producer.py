"""Ending a producer; what that needs of aiokafka: `tests/architecture/private_parts.py`."""

import asyncio

from aiokafka import AIOKafkaProducer

from adapters.log.kafka_producer import abandon


async def test_abandoning_a_producer_that_never_connected_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9", enable_idempotence=True)
    starting = asyncio.create_task(producer.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await abandon(producer)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
