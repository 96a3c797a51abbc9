"""Benchmarks for models, their metrics, and baselines that use no audio."""
