"""The event log: its port, Kafka, and a fake (in-memory)."""
