"""Consumers of the event log: indexing, analytics, and the tools that repair what they wrote."""
