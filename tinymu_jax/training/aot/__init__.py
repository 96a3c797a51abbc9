"""Training steps compiled ahead of time for TPU topologies, and forecasts from them."""
