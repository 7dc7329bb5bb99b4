"""Regression tests by theme; each test states the rule that was broken."""
