"""Weights on disk: our format, the hub, the model that ships with the package, PyTorch."""
