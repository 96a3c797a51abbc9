"""Questions and answers written by a language model behind an OpenAI-style API."""
