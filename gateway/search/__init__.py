"""Answering a search."""
