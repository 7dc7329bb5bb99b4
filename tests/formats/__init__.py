"""Regression tests of formats, metadata and names; each test states the rule that was broken."""
