"""Audits of a collection, dead letters, and records published again."""
