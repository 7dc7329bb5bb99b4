"""The event log: what is needed of it, and Kafka behind it."""
