"""Data sets on disk and the Grain loaders that feed audio features."""
