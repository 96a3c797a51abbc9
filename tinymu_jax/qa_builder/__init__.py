"""Build sets of questions and answers from annotations of recordings."""
