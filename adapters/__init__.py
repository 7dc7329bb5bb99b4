"""Ports to the servers and their implementations.

Nothing outside this package imports aiokafka, tritonclient or weaviate, except
`consumers.process.consumer_loop`, which reaches Kafka through FastStream.
"""
