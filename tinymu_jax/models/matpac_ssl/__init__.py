"""Self-supervised pre-training of MATPAC and MATPAC++ (arXiv 2502.12031, 2508.12709)."""
