"""Answering searches."""
