"""Describes, tags and lists libraries of recordings."""
