"""Reads, downloads, converts and writes checkpoints: this project's format and PyTorch's."""
