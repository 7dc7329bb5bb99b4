"""Auditing a collection, handling dead letters, and publishing records again."""
