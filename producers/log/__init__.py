"""What the watcher knows of the log, and how it writes to it."""
