"""Prepared data sets on disk, and the Grain loaders that read training batches from them."""
