"""Make questions and answers from tags and captions by rules, and select among them."""
