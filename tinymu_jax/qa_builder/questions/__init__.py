"""Makes questions and answers from tags and captions by rules, and selects among them."""
