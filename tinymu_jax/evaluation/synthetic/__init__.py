"""Evaluation on synthetic clips, whose musical attributes ("facts") are all known."""
