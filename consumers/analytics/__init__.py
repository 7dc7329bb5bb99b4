"""The consumer group that writes events to the lake, and rebuilding the lake from the log."""
