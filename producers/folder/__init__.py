"""One watched folder: notifications, comparisons and what is published."""
