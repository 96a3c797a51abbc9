"""Vocabulary of tags, and counts of the clips that have them."""
