"""Loads checkpoints, and computes answers, option scores, embeddings and tags with them."""
