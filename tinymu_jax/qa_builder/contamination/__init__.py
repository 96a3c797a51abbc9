"""Finds test items and duplicates in a built set."""
