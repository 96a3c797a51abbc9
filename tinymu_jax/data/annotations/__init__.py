"""Readers of public annotation tables and of folders of labelled recordings."""
