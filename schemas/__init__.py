"""The words every part of the system shares: events, topics and their encoding.

Imports nothing but pydantic and the standard library, so that any program may depend on it.
"""
