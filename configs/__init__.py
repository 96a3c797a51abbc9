"""Training configs, one per file; a file's docstring shows the command that uses the config."""
