"""Metadata of an image: time, position and camera."""
