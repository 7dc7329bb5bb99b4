"""Readers of the event log: indexing, and the rules by which each handles failures."""
