"""Conversion of checkpoints from and to PyTorch, without torch."""
