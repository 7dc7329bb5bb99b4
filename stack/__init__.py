"""The local launcher: runs Kafka, Weaviate, Triton and our own processes on one machine."""
