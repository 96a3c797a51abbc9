"""Clips with known facts, rendered from recorded notes, soundfonts and free recordings."""
