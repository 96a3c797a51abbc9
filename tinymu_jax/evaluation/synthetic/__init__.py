"""Evaluation on synthetic music: answers marked by facts that are known."""
