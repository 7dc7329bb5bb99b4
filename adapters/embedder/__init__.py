"""The embedder: its port, Triton, and a fake (in-memory)."""
