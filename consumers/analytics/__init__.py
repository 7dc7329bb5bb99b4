"""The consumer group that files events in the lake, and what rebuilds it from the log."""
