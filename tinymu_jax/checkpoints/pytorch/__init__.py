"""Converts checkpoints from and to PyTorch's formats, without the package torch."""
