"""The embedder: what is needed of it, and Triton behind it."""
