"""Work on whole libraries of recordings: indexes and searches."""
