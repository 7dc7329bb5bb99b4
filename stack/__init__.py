"""The local launcher: real Kafka, Weaviate and Triton, and our own processes, on one machine."""
