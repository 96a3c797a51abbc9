"""Training runs: configuration, train step, trainer loop, checkpoints."""
