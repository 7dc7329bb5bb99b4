"""The contract that all parts of the system share: events, topics and their encoding.

Imports nothing but pydantic and the standard library, so that any program may depend on it.
"""
