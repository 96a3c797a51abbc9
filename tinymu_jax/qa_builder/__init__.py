"""Builds question-answer sets from annotated recordings."""
