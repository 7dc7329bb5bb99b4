"""Worker processes for untrusted bytes, with limits of time and memory."""
