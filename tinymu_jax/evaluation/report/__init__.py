"""Evaluation reports as HTML, Markdown and JSON."""
