"""Synthesised music with known facts, and questions about it."""
