"""The consumer group that keeps a collection equal to the `images` topic."""
