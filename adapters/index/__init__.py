"""The image index: what is needed of it, and Weaviate behind it."""
