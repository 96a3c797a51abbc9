"""Benchmarks and their metrics, with baselines that need no audio."""
