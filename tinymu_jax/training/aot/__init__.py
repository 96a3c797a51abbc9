"""Compile training steps ahead of time for TPU topologies, and forecast their speed."""
