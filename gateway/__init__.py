"""The HTTP gateway: search, feedback, image files, health and the web page."""
