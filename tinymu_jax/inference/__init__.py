"""Answers, option scores, embeddings and tags from a loaded checkpoint."""
