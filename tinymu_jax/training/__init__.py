"""Fine-tuning and pre-training: losses, step, loop."""
