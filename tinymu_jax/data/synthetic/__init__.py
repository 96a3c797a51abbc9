"""Synthesizes music with known facts (timbre, tempo, ...), and writes questions about the facts."""
