"""The image index: its port, Weaviate, and a fake (in-memory)."""
