"""One watched folder: notifications, scans, and what is published."""
