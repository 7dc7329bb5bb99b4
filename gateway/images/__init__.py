"""Serving and receiving image files."""
