"""Self-supervised pre-training of the encoder: MATPAC (arXiv 2502.12031) and MATPAC++."""
