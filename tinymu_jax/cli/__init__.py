"""The `tinymu` command."""
