"""One file per experiment; the command that runs it stands in its docstring."""
