"""Configs, one file each, whose docstrings give the command; `--config NAME` names the file."""
