"""Helpers that know nothing about music or models."""
