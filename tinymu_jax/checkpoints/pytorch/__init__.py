"""Converting PyTorch checkpoints to and from ours, without torch."""
