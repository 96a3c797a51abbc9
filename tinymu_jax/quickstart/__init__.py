"""From nothing to a small TinyMU that listens: what `tinymu quickstart` does."""
