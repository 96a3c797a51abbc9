"""Scripts that convert weights from and to PyTorch; the same as `tinymu convert`."""
