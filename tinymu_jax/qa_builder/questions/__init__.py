"""Rule-based questions and answers from tags and captions."""
