"""Training steps compiled ahead of time for TPU topologies, and forecasts of their speed."""
