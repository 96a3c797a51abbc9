"""Inference: loads checkpoints, and computes answers, option scores, embeddings and tags."""
