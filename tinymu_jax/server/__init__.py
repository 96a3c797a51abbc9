"""The HTTP server of `tinymu serve`, which OpenAI's clients can talk to."""
