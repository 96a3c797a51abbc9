"""Training of models: run configs, tasks, training step and loop, and checkpoints."""
