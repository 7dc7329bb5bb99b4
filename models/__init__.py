"""Models: where they come from, how Triton serves them, and which one answers searches."""
