"""Works through libraries of recordings: captions, fields, tags, search."""
