"""Finds test-set leaks and duplicates."""
