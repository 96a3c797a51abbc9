"""Trains models: configs of runs, tasks, the training step and loop, and training checkpoints."""
