"""Evaluation on synthesised clips, where every fact is known."""
