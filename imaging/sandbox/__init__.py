"""Worker processes for untrusted input, with limits on time and memory."""
