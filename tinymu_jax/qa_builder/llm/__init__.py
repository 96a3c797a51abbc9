"""Captions and questions written by a language model on an OpenAI-compatible server."""
