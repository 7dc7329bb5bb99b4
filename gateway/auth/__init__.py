"""Identifying callers, and what is signed: access, receipts, cursors, privacy."""
