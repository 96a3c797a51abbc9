"""One file per experiment; its docstring has the command. `--config NAME` takes the file's name."""
