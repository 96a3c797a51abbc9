"""Compiles training steps ahead of time for TPU topologies and forecasts their speed."""
