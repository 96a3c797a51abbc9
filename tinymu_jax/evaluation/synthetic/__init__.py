"""Evaluation on synthesised clips, for which every fact is known."""
