"""The HTTP face: search, feedback, pictures, health and the page."""
