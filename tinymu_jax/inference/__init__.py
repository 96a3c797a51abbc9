"""Loads models from checkpoints, and computes answers, option scores, embeddings and tags."""
