"""Questions and answers written from tags and captions by rules."""
