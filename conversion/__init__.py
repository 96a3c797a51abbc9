"""Scripts that run the commands of `tinymu convert`: from PyTorch, to PyTorch, verify."""
