"""Weights to and from PyTorch: one strict table, read in both directions."""
